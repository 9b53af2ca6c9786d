"""Servos that are stable with half as many steps of the physics, and as exact.

`Euler` takes a servo's force at the beginning of a step; stiff ones then need short steps. Let the
force be that of the joint's velocity and position within the step instead: of the velocity half way
through it, and of a position a quarter of what the step moves the joint farther. Both are linear in
the acceleration, so it is as if the joint had more inertia and the servo more damping: a matter of
the model's numbers, which costs nothing (docs/decisions/021).
"""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import mujoco
import numpy as np

from pp_env import panda
from pp_env.config import HOME_JOINT_POS

_VELOCITY, _POSITION = 0.5, 0.25  # where in a step the force is taken


def take_force_within_steps(model: mujoco.MjModel) -> None:
    """Change the position servos of a model for steps of the length that it has now.

    Their limit is that of the force which moves the joint. It is exact where the joint moves as
    much as at HOME; what is limited moves a little less fast where the arm is folded.
    """
    joints, step = model.actuator_trnid[:, 0], model.opt.timestep
    dofs = model.jnt_dofadr[joints]
    moved = _inertia_at_home(model)[dofs]
    stiffness, damping = model.actuator_gainprm[:, 0], -model.actuator_biasprm[:, 2]
    inertia = _VELOCITY * step * damping + _POSITION * step**2 * stiffness
    model.actuator_biasprm[:, 2] -= _POSITION * step * stiffness
    model.actuator_forcerange[:] *= (1.0 + inertia / moved)[:, None]
    model.dof_armature[dofs] += inertia


def _inertia_at_home(model: mujoco.MjModel) -> np.ndarray:
    """Return the diagonal of the inertia matrix, kg m^2 or kg."""
    data, matrix = mujoco.MjData(model), np.zeros((model.nv, model.nv))
    first = model.joint(panda.ARM_JOINTS[0]).qposadr[0]
    data.qpos[first : first + len(HOME_JOINT_POS)] = HOME_JOINT_POS
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, matrix)
    return np.diag(matrix)
