"""The Franka Emika Panda: kinematics, limits and inertias, as published.

Frames follow `franka_description`: `panda_link0` is the base, `panda_hand` the gripper's body. Its
+z axis points out between the fingers, which open along y.

Sources: joint origins and limits, Franka Control Interface documentation ("Robot and interface
specifications"); link inertias, the identified parameters in `franka_ros`
(`franka_description/robots/common/inertial.yaml`), the same numbers as MuJoCo Menagerie's
`franka_emika_panda`; hand and finger geometry, `franka_description`.
"""

from dataclasses import dataclass

import numpy as np

_HALF_SQRT2 = 0.7071067811865476


@dataclass(frozen=True)
class Link:
    """One rigid body of the robot: its frame in its parent, and its inertia.

    Attributes:
        name: Body name.
        position: Origin in the parent link's frame, m.
        quat_wxyz: Orientation in the parent link's frame, at zero joint angle.
        mass: Mass, kg.
        center_of_mass: Position in the link's own frame, m.
        inertia: Inertia about the centre of mass, in the link's axes: xx, yy, zz, xy, xz, yz,
            kg m^2.
    """

    name: str
    position: tuple[float, float, float]
    quat_wxyz: tuple[float, float, float, float]
    mass: float
    center_of_mass: tuple[float, float, float]
    inertia: tuple[float, float, float, float, float, float]


_IDENTITY = (1.0, 0.0, 0.0, 0.0)
_ROLL_MINUS_90 = (_HALF_SQRT2, -_HALF_SQRT2, 0.0, 0.0)
_ROLL_PLUS_90 = (_HALF_SQRT2, _HALF_SQRT2, 0.0, 0.0)

BASE = Link(
    "panda_link0", (0.0, 0.0, 0.0), _IDENTITY, 0.629769,
    (-0.041018, -0.00014, 0.049974),
    (0.00315, 0.00388, 0.004285, 8.2904e-7, 0.00015, 8.2299e-6),
)  # fmt: skip

ARM = (  # the seven moving links; joint i turns link i about its own z
    Link("panda_link1", (0.0, 0.0, 0.333), _IDENTITY, 4.970684,
         (0.003875, 0.002081, -0.04762),
         (0.70337, 0.70661, 0.009117, -0.000139, 0.006772, 0.019169)),
    Link("panda_link2", (0.0, 0.0, 0.0), _ROLL_MINUS_90, 0.646926,
         (-0.003141, -0.02872, 0.003495),
         (0.007962, 0.02811, 0.025995, -0.003925, 0.010254, 0.000704)),
    Link("panda_link3", (0.0, -0.316, 0.0), _ROLL_PLUS_90, 3.228604,
         (0.027518, 0.039252, -0.066502),
         (0.037242, 0.036155, 0.01083, -0.004761, -0.011396, -0.012805)),
    Link("panda_link4", (0.0825, 0.0, 0.0), _ROLL_PLUS_90, 3.587895,
         (-0.05317, 0.104419, 0.027454),
         (0.025853, 0.019552, 0.028323, 0.007796, -0.001332, 0.008641)),
    Link("panda_link5", (-0.0825, 0.384, 0.0), _ROLL_MINUS_90, 1.225946,
         (-0.011953, 0.041065, -0.038437),
         (0.035549, 0.029474, 0.008627, -0.002117, -0.004037, 0.000229)),
    Link("panda_link6", (0.0, 0.0, 0.0), _ROLL_PLUS_90, 1.666555,
         (0.060149, -0.014117, -0.010517),
         (0.001964, 0.004354, 0.005433, 0.000109, -0.001158, 0.000341)),
    Link("panda_link7", (0.088, 0.0, 0.0), _ROLL_PLUS_90, 0.735522,
         (0.010517, -0.004252, 0.061597),
         (0.012516, 0.010027, 0.004815, -0.000428, -0.001196, -0.000741)),
)  # fmt: skip

HAND = Link(  # bolted to the flange, 0.107 m out of link 7 and turned by -45 degrees
    "panda_hand", (0.0, 0.0, 0.107), (0.9238795325112867, 0.0, 0.0, -0.3826834323650898), 0.73,
    (-0.01, 0.0, 0.03), (0.001, 0.0025, 0.0017, 0.0, 0.0, 0.0),
)  # fmt: skip

LEFT_FINGER = Link(
    "panda_leftfinger", (0.0, 0.0, 0.0584), _IDENTITY, 0.015,
    (0.0, 0.0, 0.0), (2.375e-6, 2.375e-6, 7.5e-7, 0.0, 0.0, 0.0),
)  # fmt: skip

RIGHT_FINGER = Link(
    "panda_rightfinger", (0.0, 0.0, 0.0584), (0.0, 0.0, 0.0, 1.0), 0.015,
    LEFT_FINGER.center_of_mass, LEFT_FINGER.inertia,
)  # fmt: skip

# Boxes inside a finger's mesh, half size and centre in its frame, m: the pad, whose face is at
# y = 0, and the part behind it.
FINGER_BOXES = (
    ((0.0085, 0.004, 0.009), (0.0, 0.004, 0.0445)),
    ((0.0085, 0.008, 0.018), (0.0, 0.016, 0.018)),
)

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")

JOINT_LOWER = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])  # rad
JOINT_UPPER = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])  # rad
JOINT_VELOCITY_LIMIT = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])  # rad/s
JOINT_TORQUE_LIMIT = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])  # N m

FINGER_CLOSED = 0.0  # m, travel of each finger
FINGER_OPEN = 0.04  # m

TCP_OFFSET = 0.1034  # m along panda_hand's +z: between the centres of the two finger pads
PALM_OFFSET = 0.066  # m along panda_hand's +z: where the hand's body ends
FINGERTIP_OFFSET = 0.112  # m along panda_hand's +z
HAND_HALF_WIDTH = 0.104  # m along panda_hand's y
OPEN_FINGER_REACH = 0.064  # m along panda_hand's y: the outer side of an open finger

# Orientation of panda_hand at HOME, pointing down. Around it, quaternions with x >= 0 have no jump;
# with w >= 0 the sign would be noise, since w is all but 0.
HAND_DOWN_QUAT_WXYZ = np.array([0.0, 1.0, 0.0, 0.0])

for _array in (
    JOINT_LOWER, JOINT_UPPER, JOINT_VELOCITY_LIMIT, JOINT_TORQUE_LIMIT, HAND_DOWN_QUAT_WXYZ,
):  # fmt: skip
    _array.setflags(write=False)
