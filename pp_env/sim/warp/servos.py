"""Position servos as MuJoCo's integrator `discrete` has them, at the price of `Euler`.

A servo's force at the end of a step of length h is that of the beginning, less h * stiffness times
the velocity at the end, on which the damping acts, too. Both are linear in the acceleration, so it
is as if the joint had h * damping + h^2 * stiffness more inertia, and the servo h * stiffness more
damping. A servo at its limit has neither. So stiff servos are stable with few steps; MuJoCo does
the same for all kinds of forces, by iterations that take as long as half of a step
(docs/decisions/021).
"""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportInvalidTypeForm=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (Warp's kernels, arrays and structs have types of their own)

from typing import NamedTuple

import mujoco
import numpy as np
import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.struct
class Servos:
    """`ServoTable` on the device."""

    qpos: wp.array(dtype=wp.int32)
    dof: wp.array(dtype=wp.int32)
    range: wp.array(dtype=wp.vec2)
    stiffness: wp.array(dtype=wp.float32)
    damping: wp.array(dtype=wp.float32)
    limit: wp.array(dtype=wp.float32)
    armature: wp.array(dtype=wp.float32)
    more_damping: wp.array(dtype=wp.float32)
    more_inertia: wp.array(dtype=wp.float32)


class ServoTable(NamedTuple):
    """The servos, one row each; units are those of a hinge, or of a slide.

    Attributes:
        qpos: (n,) where the joint's position stands.
        dof: (n,) where its velocity stands.
        range: (n, 2) rad or m, of targets.
        stiffness: (n,) N m/rad or N/m.
        damping: (n,) N m s/rad or N s/m.
        limit: (n,) N m or N, of the force.
        armature: (n,) kg m^2 or kg, of the joint.
        more_damping: (n,) what an implicit step adds to the damping.
        more_inertia: (n,) what it adds to the armature.
    """

    qpos: np.ndarray
    dof: np.ndarray
    range: np.ndarray
    stiffness: np.ndarray
    damping: np.ndarray
    limit: np.ndarray
    armature: np.ndarray
    more_damping: np.ndarray
    more_inertia: np.ndarray

    def on_device(self) -> Servos:
        """Return the table on Warp's current device."""
        servos = Servos()
        for name, values in self._asdict().items():
            kind = (
                wp.int32 if name in ("qpos", "dof") else wp.vec2 if name == "range" else wp.float32
            )
            setattr(servos, name, wp.array(values, dtype=kind))
        return servos


def take_servos(model: mujoco.MjModel) -> ServoTable:
    """Return the servos of a model, whose actuators are motors from here on."""
    joints, step = model.actuator_trnid[:, 0], model.opt.timestep
    dofs = model.jnt_dofadr[joints]
    stiffness, damping = model.actuator_gainprm[:, 0].copy(), -model.actuator_biasprm[:, 2]
    table = ServoTable(
        qpos=model.jnt_qposadr[joints],
        dof=dofs,
        range=model.actuator_ctrlrange.copy(),
        stiffness=stiffness,
        damping=damping,
        limit=model.actuator_forcerange[:, 1].copy(),
        armature=model.dof_armature[dofs],
        more_damping=step * stiffness,
        more_inertia=step * damping + step**2 * stiffness,
    )
    model.actuator_gainprm[:, 0], model.actuator_biasprm[:] = 1.0, 0.0
    model.actuator_biastype[:] = mujoco.mjtBias.mjBIAS_NONE
    model.actuator_ctrllimited[:] = model.actuator_forcelimited[:] = 0
    return table


@wp.kernel
def drive_servos(
    servos: Servos,
    targets: wp.array2d(dtype=wp.float32),
    qpos: wp.array2d(dtype=wp.float32),
    qvel: wp.array2d(dtype=wp.float32),
    force: wp.array2d(dtype=wp.float32),
    armature: wp.array2d(dtype=wp.float32),
):
    """Set the motors' forces, N m or N, and the joints' armature for the next step."""
    w, i = wp.tid()
    dof, limit = servos.dof[i], servos.limit[i]
    target = wp.clamp(targets[w, i], servos.range[i][0], servos.range[i][1])
    error, speed = target - qpos[w, servos.qpos[i]], qvel[w, dof]
    wanted = servos.stiffness[i] * error - servos.damping[i] * speed
    if wp.abs(wanted) < limit:
        force[w, i] = wanted - servos.more_damping[i] * speed
        armature[w, dof] = servos.armature[i] + servos.more_inertia[i]
    else:
        force[w, i] = wp.sign(wanted) * limit
        armature[w, dof] = servos.armature[i]
