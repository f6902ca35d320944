#!/usr/bin/env bash
# Makes .venv, the environment that ./run works in. Safe to repeat: does nothing when up to date.
# With ROS sourced it adds to that ROS; without, it brings a real rclpy from wheels. See README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$PWD/.venv
stamp=$venv/.cmkd_setup
log=$PWD/build/setup.log
choices=$venv/.cmkd_choices

# What was asked for once holds for later set-ups of the same environment.
chosen() { sed -n "$1p" "$choices" 2>/dev/null || true; }
own_torch=${CMKD_TORCH:-$(chosen 1)}
own_spconv=${CMKD_SPCONV:-$(chosen 2)}
torch=${own_torch:-$(grep -v '^#' env/requirements-torch.txt)}

say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] %s\n' "$@" >&2; exit 1; }

# --- which Python, which ROS -------------------------------------------------------------------

# The interpreter behind an active venv, since a venv made from a venv inherits its troubles.
base_python() {
  local asked=${CMKD_PYTHON:-python3} found python
  found='import sys; print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", ""))'
  found=$("$asked" -c "$found" 2>/dev/null) ||
    die "'$asked' is no Python that starts here; 3.10 to 3.13 is needed. Name one: CMKD_PYTHON=python3.12 ./run setup"
  python=${found#* }
  case ${found%% *} in
    3.10 | 3.11 | 3.12 | 3.13) echo "$python" ;;
    *) die "'$asked' is Python ${found%% *}; 3.10 to 3.13 is needed. Name one: CMKD_PYTHON=python3.12 ./run setup" ;;
  esac
}

# sourced: ROS is installed here. wheels: it comes from pip. none: no wheels for this machine.
ros_kind() {
  if [ -n "${ROS_DISTRO:-}" ] && (cd / && "$python" -c 'import rclpy') 2>/dev/null; then
    echo sourced
  elif [ "$(uname -sm)" = 'Linux x86_64' ]; then
    echo wheels
  else
    echo none
  fi
}

# With ROS sourced its own packages are used; what of them is absent only its installer can bring.
check_sourced_ros() {
  local package missing=()
  for package in vision_msgs tf2_msgs visualization_msgs diagnostic_msgs lifecycle_msgs; do
    "$python" -c "import $package" 2>/dev/null || missing+=("ros-$ROS_DISTRO-${package//_/-}")
  done
  [ ${#missing[@]} -eq 0 ] || die "ROS $ROS_DISTRO is sourced but lacks: ${missing[*]}." \
    "Install them: sudo apt-get install -y ${missing[*]}"
}

fingerprint() {
  {
    "$python" -V; echo "$ros $torch $own_spconv $PWD"
    cat env/*.txt env/setup.sh env/*.cmake env/*_msgs/CMakeLists.txt env/*_msgs/msg/* setup.py setup.cfg
  } | sha256sum
}

# --- packages of the operating system ----------------------------------------------------------

missing_tools() {
  "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  [ "$ros" = wheels ] || return 0
  command -v g++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  command -v cmake >/dev/null || echo cmake
  "$python" -c 'import os, sysconfig as s; open(os.path.join(s.get_paths()["include"], "Python.h"))' \
    2>/dev/null || echo python3-dev
}

install_tools() {
  local missing
  mapfile -t missing < <(missing_tools)
  [ ${#missing[@]} -gt 0 ] || return 0
  local advice="apt-get update && apt-get install -y ${missing[*]}"
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "These tools are missing: ${missing[*]}." "Install them and repeat, on Debian and Ubuntu: sudo sh -c '$advice'"
  fi
  say "installing ${missing[*]} with apt"
  DEBIAN_FRONTEND=noninteractive sh -c "$advice" >>"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "apt could not install ${missing[*]} (above); is there internet access?"; }
  mapfile -t missing < <(missing_tools)
  [ ${#missing[@]} -eq 0 ] || die "Still missing after apt-get install: ${missing[*]} (Python: $python)"
}

# An environment made by hand is kept; one made for the other kind of ROS is made anew.
make_venv() {
  local inherits=false site=()
  [ "$ros" != sourced ] || { inherits=true; site=(--system-site-packages); }
  if "$venv/bin/python" -c '' 2>/dev/null &&
    grep -qx "include-system-site-packages = $inherits" "$venv/pyvenv.cfg"; then
    return
  fi
  say "making $venv"
  "$python" -m venv --clear "${site[@]}" "$venv" >>"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "$python could not make $venv (above)."; }
}

# --- Python packages ---------------------------------------------------------------------------

# Quiet but honest: everything goes to the log, big downloads are shown, errors end the set-up.
pip_install() {
  local what=$1
  shift
  say "$what"
  if ! "$venv/bin/python" -m pip install --progress-bar off --disable-pip-version-check "$@" 2>&1 |
    tee -a "$log" | sed -nuE 's/^ *Downloading ([^ ]+) \(([0-9]{2,}[0-9.]* [MG]B)\).*/        fetching \1, \2/p' |
    sed -uE 's#[^ ]*/##' >&2; then
    grep -E '^(ERROR|error|  error|WARNING: Retrying)' "$log" | tail -n 8 >&2 || true
    die "pip failed while $what (above); is there internet access? The whole log is $log."
  fi
}

training_requirements() {
  if [ -n "$own_spconv" ]; then
    grep -v '^spconv' env/requirements-training.txt
    echo "$own_spconv"
  else
    cat env/requirements-training.txt
  fi
}

install_packages() {
  local more=() training
  # shellcheck disable=SC2086  # CMKD_TORCH may hold options: torch==2.13.0 --index-url URL
  pip_install "installing ${torch%% *}" $torch
  case $ros in
    sourced) "$venv/bin/python" -c 'import cv_bridge' 2>/dev/null && more+=(-c env/constraints-apt-ros.txt) ;;
    wheels) more+=(-r env/requirements-ros.txt) ;;
  esac
  training=$(mktemp)
  training_requirements >"$training"
  pip_install 'installing the packages in env/requirements*.txt' \
    -r env/requirements.txt -r "$training" -r env/requirements-dev.txt "${more[@]}"
  rm -f "$training"
}

# --- ROS interfaces and this package -----------------------------------------------------------

# An interface package from its definition in env/, unless the statement given already imports it.
build_interfaces() {
  local package=$1 statement=$2 build
  ! "$venv/bin/python" -c "$statement" 2>/dev/null || return 0
  say "building $package"
  build=$(mktemp -d)
  (
    unset LD_LIBRARY_PATH PYTHONPATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
    export VIRTUAL_ENV=$venv AMENT_PREFIX_PATH=$venv PATH=$venv/bin:$PATH
    cmake -S "env/$package" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
      -DCMAKE_PREFIX_PATH="$venv" -DCMAKE_INSTALL_PREFIX="$venv" \
      -DPython3_EXECUTABLE="$venv/bin/python" &&
      cmake --build "$build" --parallel "$(nproc)" &&
      cmake --install "$build"
  ) >>"$log" 2>&1 || { tail -n 15 "$log" >&2; die "$package did not build (above); the whole log is $log."; }
  rm -rf "$build"
}

build_all_interfaces() {
  build_interfaces vision_msgs 'from vision_msgs.msg import Detection3DArray, LabelInfo'
  build_interfaces tf2_msgs 'from tf2_msgs.msg import TFMessage'
}

# As colcon would lay it out, so that commands written for an installed package work in .venv too.
install_this_package() {
  pip_install 'installing this package (editable)' --no-deps --no-build-isolation -e .
  mkdir -p "$venv/lib/cmkd_ros" "$venv/share/cmkd_ros" "$venv/share/ament_index/resource_index/packages"
  ln -sfn ../../bin/cmkd_detector "$venv/lib/cmkd_ros/cmkd_detector"
  ln -sfn ../../bin/cmkd "$venv/lib/cmkd_ros/cmkd"
  ln -sfn "$PWD/package.xml" "$venv/share/cmkd_ros/package.xml"
  ln -sfn "$PWD/config" "$venv/share/cmkd_ros/config"
  ln -sfn "$PWD/launch" "$venv/share/cmkd_ros/launch"
  cp resource/cmkd_ros "$venv/share/ament_index/resource_index/packages/cmkd_ros"
}

# --- all of it ---------------------------------------------------------------------------------

python=$(base_python)
ros=$(ros_kind)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
  exit 0
fi

SECONDS=0
mkdir -p build
: >"$log"
say "$venv with $("$python" -V), ROS: $ros"
[ "$ros" != sourced ] || check_sourced_ros
[ "$ros" != none ] || say "no ROS sourced and no ROS wheels for $(uname -sm): training and evaluation only"
install_tools
make_venv
printf '%s\n' "$own_torch" "$own_spconv" >"$choices"
install_packages
[ "$ros" != wheels ] || build_all_interfaces
install_this_package
fingerprint >"$stamp"
say "done in $SECONDS s"
