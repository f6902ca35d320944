"""Shapes, roads, traffic, noise, light and beams of the synthetic world."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from cmkd_ros.training.data.synthetic import DriveSettings, people, scenery, vehicles
from cmkd_ros.training.data.synthetic.daylight import Daylight
from cmkd_ros.training.data.synthetic.hills import Profile
from cmkd_ros.training.data.synthetic.lidar import beam_directions, scan
from cmkd_ros.training.data.synthetic.picture import pinhole_rays, take_picture
from cmkd_ros.training.data.synthetic.road import Road
from cmkd_ros.training.data.synthetic.scene import Geometry, Scene
from cmkd_ros.training.data.synthetic.shapes import Shape, blob, box, quads, tube
from cmkd_ros.training.data.synthetic.solids import unit_cube, unit_sphere
from cmkd_ros.training.data.synthetic.street import Street, Thing
from cmkd_ros.training.data.synthetic.surfaces import Material, Noise, tone_table


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def solid(shape: Shape) -> trimesh.Trimesh:
    """The triangles as one mesh with shared corners."""
    corners = shape.corners_T33.reshape(-1, 3)
    return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3))


def test_solids_are_those_of_trimesh() -> None:
    vertices, faces = unit_cube()
    cube = trimesh.creation.box(extents=np.ones(3))
    assert np.array_equal(vertices, cube.vertices) and np.array_equal(faces, cube.faces)
    for detail in (0, 1, 3):
        sphere = trimesh.creation.icosphere(subdivisions=detail)
        corners = sphere.vertices[sphere.faces]
        assert unit_sphere(detail) == pytest.approx(np.asarray(corners), abs=1e-15)


@pytest.mark.parametrize(
    ('shape', 'volume'),
    [
        (box((1, 2, 3), (1, 2, 3), (0, 0, 0), Material.CLOTH), 6.0),
        (tube((0, 0, 0), (0, 0, 2), (1, 1), (0, 0, 0), Material.CLOTH, sides=64), 2 * np.pi),
        (tube((1, 0, 0), (4, 0, 0), (1, 1e-3), (0, 0, 0), Material.CLOTH, sides=64), np.pi),
        (blob((0, 0, 5), (1, 2, 3), (0, 0, 0), Material.CLOTH, detail=4), 8 * np.pi),
    ],
)
def test_primitives_are_closed_solids(shape: Shape, volume: float) -> None:
    mesh = solid(shape)
    assert mesh.is_watertight
    assert abs(mesh.volume) == pytest.approx(volume, rel=0.01)
    # Normals point out of the solid.
    outwards = (shape.normals_T33 * (shape.corners_T33 - mesh.center_mass)).sum(-1)
    assert (outwards > 0).all() or (outwards < 0).all()


def test_vehicles_fill_their_boxes_and_have_kittis_sizes() -> None:
    rng = generator()
    sizes = []
    for build in [vehicles.car] * 40 + [vehicles.van] * 5 + [vehicles.truck] * 5:
        low, high = build(rng).bounds_23
        assert low[:2] == pytest.approx(-high[:2]) and low[2] == pytest.approx(0.0)
        sizes.append(high - low)
    assert np.mean(sizes[:40], axis=0) == pytest.approx([3.95, 1.64, 1.54], abs=0.15)
    assert (np.array(sizes[40:45])[:, 2] > 1.85).all()
    assert (np.array(sizes[45:])[:, 0] > 6.0).all()


def test_front_of_a_car_differs_from_its_rear() -> None:
    rng = generator(3)
    for _ in range(5):
        car = vehicles.car(rng)
        lamps = car.materials_T == Material.LAMP
        x = car.corners_T33[lamps].mean(axis=(1, 2))
        red = car.colours_T3[lamps][:, 0] > 4 * car.colours_T3[lamps][:, 1]
        assert red.any() and (~red).any()
        assert (
            car.corners_T33[lamps][red][..., 0].max() < car.corners_T33[lamps][~red][..., 0].min()
        )
        assert np.isfinite(x).all()


def test_people_have_human_size_in_every_phase() -> None:
    rng = generator(1)
    for _ in range(6):
        person = people.Person.random(rng)
        for phase in (None, 0.0, 0.25, 0.6):
            low, high = people.pedestrian(person, phase).bounds_23
            assert (high - low)[2] == pytest.approx(person.height, rel=0.06)
            assert 0.25 < (high - low)[1] < 0.85 and (high - low)[0] < 1.3
        low, high = people.cyclist(person, np.array([0.1, 0.2, 0.3]), 0.3).bounds_23
        assert (high - low)[0] == pytest.approx(1.74, abs=0.1)


@pytest.mark.parametrize(
    'name', ['tree', 'conifer', 'bush', 'lamp_post', 'traffic_sign', 'street_box']
)
def test_scenery_is_finite_with_unit_normals(name: str) -> None:
    shape = getattr(scenery, name)(generator(2))
    assert np.isfinite(shape.corners_T33).all()
    lengths = np.sqrt((shape.normals_T33**2).sum(-1))
    assert lengths == pytest.approx(1.0, abs=0.05)
    assert ((shape.colours_T3 >= 0) & (shape.colours_T3 <= 1)).all()


def test_road_coordinates_measure_metres() -> None:
    road = Road(generator(5), 300.0)
    s = np.arange(0.0, 300.0, 0.1)
    x, y, yaw = road.pose(s, 0.0)
    assert np.hypot(np.diff(x), np.diff(y)) == pytest.approx(0.1, rel=1e-3)
    assert np.arctan2(np.diff(y), np.diff(x)) == pytest.approx(yaw[:-1], abs=0.01)
    left_x, left_y, _ = road.pose(s, 2.0)
    assert np.hypot(left_x - x, left_y - y) == pytest.approx(2.0)
    assert np.abs(yaw).max() > 0.05, 'the road of this seed has a curve'


def test_road_users_never_touch() -> None:
    for seed in range(4):
        street = Street(generator(seed), 4.0, 1.5)
        movers = street.traffic.movers
        assert len(movers) > 5
        for time in np.arange(0.0, 4.0, 0.5):
            places = np.array([mover.motion.at(time) for mover in movers])
            for i in range(len(movers)):
                for j in range(i):
                    ds, dd = np.abs(places[i] - places[j])
                    reach = [_extents(movers[k]) for k in (i, j)]
                    apart = ds > (reach[0][0] + reach[1][0]) / 2
                    assert apart or dd > (reach[0][1] + reach[1][1]) / 2


def _extents(mover) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    cos, sin = abs(np.cos(mover.motion.heading)), abs(np.sin(mover.motion.heading))
    length, width = mover.size[:2]
    return cos * length + sin * width, sin * length + cos * width


def test_frames_of_a_drive_move_continuously() -> None:
    settings = DriveSettings(40, 9)
    street = Street(settings.generator(0, 'world'), settings.drive_s, 1.0)
    before, after = (np.array(street.route.own_pose(t)) for t in (0.5, 0.6))
    step = np.hypot(*(after - before)[:2])
    assert step == pytest.approx(0.1 * street.traffic.own.speed, abs=0.02)
    first, second = list(street.moving(0.5)), list(street.moving(0.6))
    assert [thing.kind for thing in first] == [thing.kind for thing in second]
    for a, b in zip(first, second, strict=True):
        assert np.hypot(a.x - b.x, a.y - b.y) < 1.7
        assert a.size == b.size


def test_noise_repeats_after_a_tile_and_fades_with_distance() -> None:
    noise, rng = Noise(generator(4)), generator(6)
    u, v = rng.uniform(-500, 500, (2, 4000)).astype(np.float32)
    near = noise.sample(u, v, np.zeros_like(u))
    assert noise.sample(u + 512, v - 1024, np.zeros_like(u)) == pytest.approx(near, abs=2e-3)
    spread = [noise.sample(u, v, np.full_like(u, f)).std() for f in (0.5, 4.0, 32.0)]
    assert spread[0] > spread[1] > spread[2] > 0
    assert abs(near.mean()) < 0.1 and 0.2 < near.std() < 0.7
    whole = noise.sample(np.float32([3.0]), np.float32([5.0]), np.float32([0.0]))
    between = noise.sample(np.float32([3.5]), np.float32([5.0]), np.float32([0.0]))
    beside = noise.sample(np.float32([4.0]), np.float32([5.0]), np.float32([0.0]))
    assert between == pytest.approx((whole + beside) / 2, abs=1e-6)


def test_tone_curve_is_srgb() -> None:
    table = tone_table()
    assert (np.diff(table.astype(int)) >= 0).all()
    assert table[0] == 0 and table[-1] == 255 and table[round(0.2140 * 4095)] == 127


def plain() -> Shape:
    """Level grass."""
    corners = [(-500, -500, 0), (500, -500, 0), (500, 500, 0), (-500, 500, 0)]
    return quads([corners], (0.065, 0.095, 0.028), Material.GRASS)


def level_street() -> Street:
    """A street without slopes and without traffic."""
    street = Street(generator(0), 0.1, 0.0)
    street.road.profile = Profile.level()
    street.traffic.movers = []
    return street


def bare_scene(*things: Thing, daylight: Daylight | None = None) -> Scene:
    """A plain with these things, seen from the origin of the world."""
    street = level_street()
    street.fixed = [Thing(plain(), 0.0, 0.0, 0.0, 0.0), *things]
    if daylight is not None:
        street.daylight = daylight
    scene = Scene(street, Geometry(street.fixed), 0.0, 1.73)
    return scene


def test_beams_are_those_of_an_hdl_64e() -> None:
    x, y, z = beam_directions(45.0).reshape(3, 64, -1).astype(np.float64)
    assert np.sqrt(x * x + y * y + z * z) == pytest.approx(1.0, abs=1e-5)
    elevation = np.degrees(np.arcsin(z))
    assert elevation[0] == pytest.approx(2.0, abs=0.01)
    assert elevation[-1] == pytest.approx(-24.33, abs=0.01)
    assert (np.diff(elevation[:, 0]) < 0).all()
    azimuth = np.degrees(np.arctan2(y, x))
    assert np.abs(azimuth).max() < 45.0
    assert np.median(np.diff(azimuth[0])) == pytest.approx(0.18, abs=1e-3)
    assert azimuth[0, 0] == pytest.approx(0.09, abs=1e-3), 'scans begin straight ahead'


def test_scan_of_a_plain_is_the_ground() -> None:
    points = scan(bare_scene(), 45.0, generator(1))
    assert np.median(points[:, 2]) == pytest.approx(-1.73, abs=0.01)
    assert np.abs(points[:, 2] + 1.73).max() < 0.12
    assert (points[:, 3] >= 0).all() and (points[:, 3] < 1).all()
    ranges = np.sqrt((points[:, :3] ** 2).sum(1))
    down = beam_directions(45.0)[2] < 0
    assert 0.5 * down.sum() < len(points) < down.sum()
    assert ranges.max() < 120


def test_range_noise_and_losses() -> None:
    board = box((0, 0, 5), (0.2, 80, 10), (0.5, 0.5, 0.5), Material.FACADE)
    points = scan(bare_scene(Thing(board, 20.1, 0.0, 0.0, 0.0)), 30.0, generator(1))
    wall = points[points[:, 2] > -1.2]
    x = wall[:, 0] / np.median(wall[:, 0])
    assert 0.0003 < x.std() < 0.0015
    ahead, _, up = beam_directions(30.0)
    hits = (up / ahead * np.median(wall[:, 0]) > -1.2).sum()
    assert 0.95 < len(wall) / hits < 0.995


def test_sun_casts_a_shadow_away_from_itself() -> None:
    sunny = Daylight(0.5 * np.pi, 0.7, (1.0, 1.0, 1.0), (0.2,) * 3, (0.3,) * 3, (0.8,) * 3,
                     0.2, 0.0004, 1.0, (1.0,) * 3)  # fmt: skip
    pole = box((0, 0, 2), (1, 1, 4), (0.5, 0.5, 0.5), Material.CLOTH)
    scene = bare_scene(Thing(pole, 15.0, -1.6, 0.0, 0.0), daylight=sunny)
    settings = DriveSettings(1, 0, 414, 125)
    rays = pinhole_rays(settings.calibration(0), 414, 125)
    image, pixels = take_picture(scene, rays, generator(0))
    # The sun stands to the left: the ground right of the pole is darker than left of it.
    foot = np.nonzero(pixels == 1)
    row, left, right = foot[0].max() - 1, foot[1].min() - 12, foot[1].max() + 12
    lit, shadow = image[row - 1 : row + 2, left].mean(), image[row - 1 : row + 2, right].mean()
    assert shadow < 0.8 * lit
    assert (pixels[:20] == -1).any() and image[0].mean() > image[row].mean()


def test_near_things_hide_far_ones_whether_fixed_or_moving() -> None:
    street = level_street()
    board = box((0, 0, 1), (0.1, 2, 2), (0.5, 0.5, 0.5), Material.CLOTH)
    own = street.route.own_pose(0.0)

    def seen(fixed_x: float, moving_x: float) -> int:
        street.fixed = [Thing(board, own[0] + fixed_x, own[1], 0.0, 0.0, 'Car', (0.1, 2, 2))]
        moving = Thing(board, own[0] + moving_x, own[1], 0.0, 0.0, 'Van', (0.1, 2, 2))
        street.moving = lambda time: iter([moving])  # type: ignore[method-assign]
        scene = Scene(street, Geometry(street.fixed), 0.0, 1.73)
        ray = scene.to_world(np.array([[1.0], [0.0], [-0.02]], dtype=np.float32))
        triangle = scene.cast(scene.own_3, ray)
        reach = float(scene.distances(scene.own_3, ray, triangle)[0])
        assert reach == pytest.approx(min(fixed_x, moving_x) - 0.05, abs=0.01)
        return int(scene.things_T[triangle[0]])

    assert seen(10.0, 20.0) == 0
    assert seen(20.0, 10.0) == 1


def test_hills_bend_gently_and_the_slope_is_the_rise() -> None:
    profile = Profile.random(generator(3), 800, -24.0, 0.5)
    s = np.arange(0.0, 300.0, 0.5)
    heights = profile.height(s, 0.0)
    assert heights[0] == pytest.approx(0.0, abs=1e-9) and np.ptp(heights) > 0.1
    slopes = np.array([profile.slopes(float(x), 0.0) for x in s])
    assert np.diff(heights) / 0.5 == pytest.approx(slopes[:-1, 0], abs=2e-3)
    assert np.abs(slopes[:, 0]).max() <= 0.08 and np.abs(slopes[:, 1]).max() <= 0.03
    assert profile.slopes(100.0, np.pi) == pytest.approx([-v for v in profile.slopes(100.0, 0.0)])


def test_crossings_keep_the_street_free() -> None:
    street = Street(generator(4), 2.0, 1.0)
    crossings = street.section.crossings
    assert crossings
    for crossing in crossings:
        x, y, yaw = street.road.pose(crossing.s, 0.0)
        for thing in street.fixed[1:]:
            dx, dy = thing.x - x, thing.y - y
            along = dx * np.cos(yaw) + dy * np.sin(yaw)
            across = dy * np.cos(yaw) - dx * np.sin(yaw)
            ground = (thing.shape.materials_T <= Material.GRASS).all()
            if not ground and abs(across) < 30:
                assert abs(along) > crossing.half, thing.kind


def test_blur_smears_along_the_motion_only() -> None:
    street = level_street()
    board = box((0, 0, 1.5), (0.1, 4, 3), (0.9, 0.9, 0.9), Material.CLOTH)
    street.route = replace(street.route, own=replace(street.route.own, speed=12.0))
    own = street.route.own_pose(0.0)
    pictures = []
    for shutter in (0.0, 0.05):
        street.daylight = replace(street.daylight, shutter_s=shutter)
        street.fixed = [
            Thing(plain(), 0.0, 0.0, 0.0, 0.0),
            Thing(board, own[0] + 12, own[1] + 2.5, 0.0, 0.0),
        ]
        scene = Scene(street, Geometry(street.fixed), 0.0, 1.73)
        rays = pinhole_rays(DriveSettings(1, 0, 414, 125).calibration(0), 414, 125)
        pictures.append(take_picture(scene, rays, generator(0))[0].astype(float).mean(axis=2))
    sharp, smeared = pictures
    # The vanishing point stays as it is, the board at the side does not.
    assert np.abs(sharp - smeared)[50:70, 195:215].max() < 2
    assert np.abs(sharp - smeared).max() > 10
