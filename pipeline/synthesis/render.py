"""Applying specs: `synthesise(case, spec)` gives image and label; `render` also says which voxels are which tumor.

Work happens only in boxes around the tumors. All arithmetic is on whole numbers, or float32 additions, multiplications,
divisions and square roots of single voxels, so neither the device, batching, threads nor the order of samples changes a
bit. (Not even division by a plain number: a GPU multiplies by its reciprocal.) On a GPU the tumors of many samples are
worked on together, `render_batch`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pipeline.case import AIR_HU, HU_RANGE, Case
from pipeline.grid import Index3, Slices3, index3, slices3
from pipeline.organs import organ_id, tumor_id
from pipeline.synthesis import effects, shape, texture
from pipeline.synthesis.engines.registry import engine_of, is_coarse, reach_mm
from pipeline.synthesis.location import GAP_VOXELS
from pipeline.synthesis.upstream import behind_blocked_duct, gland_box
from pipeline.synthesis.warp import mass_effect
from pipeline.synthesis.window import Window, volume_box

if TYPE_CHECKING:
    from pipeline.spec.records import SampleSpec, TumorSpec

_BATCH_VOXELS = 1 << 25  # of all boxes that a GPU works on together: 128 MiB for each of about ten temporaries


@dataclass(frozen=True)
class Instance:
    """One tumor as it came out: its box in the patch and its voxels in that box."""

    tumor: TumorSpec
    box: Slices3
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rendered:
    """Image int16 HU and label uint8, both (X, Y, Z), and the tumors in them."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class _Canvas:
    """A sample in the making: the tensors are painted on."""

    case: Case
    spec: SampleSpec
    image: torch.Tensor
    label: torch.Tensor
    masks: dict[int, Instance]  # by position among the spec's tumors


@dataclass(frozen=True)
class _Job:
    """One tumor or distractor and the box of its patch that it can touch."""

    canvas: _Canvas
    tumor: TumorSpec
    number: int | None  # position among the spec's tumors; None for a distractor
    low: Index3
    high: Index3

    @property
    def size(self) -> Index3:
        return index3(np.subtract(self.high, self.low))


def synthesise(
    case: Case, spec: SampleSpec, device: str = "cpu"
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """The image (int16 HU) and label (uint8 class ids) of a sample, (X, Y, Z), as numpy arrays. Pure."""
    rendered = render(case, spec, device)
    return rendered.image, rendered.label


def render(case: Case, spec: SampleSpec, device: str = "cpu") -> Rendered:
    """Cut the healthy patch and put the spec's tumors into it."""
    return render_batch([case], [spec], device)[0]


def render_batch(cases: Sequence[Case], specs: Sequence[SampleSpec], device: str = "cpu") -> list[Rendered]:
    """Render many samples. On a GPU with one sequence of kernels for all tumors of like size and engine."""
    where = torch.device(device)
    with torch.inference_mode():
        if where.type == "cpu":  # one at a time: what a sample needs stays in the cache
            return [_rendered([case], [spec], where)[0] for case, spec in zip(cases, specs, strict=True)]
        return _rendered(cases, specs, where)


def _rendered(cases: Sequence[Case], specs: Sequence[SampleSpec], device: torch.device) -> list[Rendered]:
    """First what is tumor, since one that borders cut to nothing must not move tissue either; then paint."""
    canvases = _canvases(cases, specs, device)
    made = [_formed(group, device) for group in _groups(_lesions(canvases), device)]
    alive = [job for formed in made for job, mask in zip(formed.group, formed.masks, strict=True) if mask.any()]
    for group in _groups(_around(alive), device):
        _push(group, device)
    for job in alive:
        _block_duct(job, device)
    for formed in made:
        _paint(formed, device)
    return _finished(canvases, device)


def _canvases(cases: Sequence[Case], specs: Sequence[SampleSpec], device: torch.device) -> list[_Canvas]:
    """The healthy patches."""
    canvases = []
    for case, spec in zip(cases, specs, strict=True):
        _check_apart(spec, case.spacing_mm)
        image = volume_box(case, "ct", spec.origin_vox, spec.patch_shape, AIR_HU, device)
        if device.type != "cpu":  # there, a box that lies inside the volume is a view of it
            image = image.clone()
        organs = volume_box(case, "organs", spec.origin_vox, spec.patch_shape, 0, device)
        canvases.append(_Canvas(case, spec, image, _labelled(organs, spec.organs), {}))
    return canvases


def _check_apart(spec: SampleSpec, spacing_mm: float) -> None:
    """Nothing that a tumor touches is touched by another: so their order does not matter."""
    for a, b in combinations((*spec.tumors, *spec.distractors), 2):
        apart = math.dist(a.center_vox, b.center_vox) * spacing_mm
        if apart < touched_mm(a) + touched_mm(b) + GAP_VOXELS * spacing_mm:
            raise ValueError(f"sample {spec.index}: tumors {a.instance} and {b.instance} are {apart:.1f} mm apart")


def touched_mm(tumor: TumorSpec) -> float:
    """No voxel farther from the centre changes (but for the gland behind a blocked duct)."""
    return max(reach_mm(tumor), tumor.mass_effect.reach_mm if tumor.mass_effect else 0.0)


def confined_to(case: Case, spec: SampleSpec) -> list[Slices3]:
    """Boxes of the patch: no voxel outside all of them differs from the healthy case."""
    boxes = []
    for lesion in (*spec.tumors, *spec.distractors):
        extent = np.maximum(engine_of(lesion).extent_mm(lesion), touched_mm(lesion)) / case.spacing_mm + 1
        center = np.array(lesion.center_vox)
        bounds = [(np.floor(center - extent), np.ceil(center + extent) + 1)]
        if lesion.upstream:
            bounds.append(gland_box(case, lesion.organ, lesion.upstream))
        for low, high in bounds:
            inner = [
                np.clip(np.subtract(bound, spec.origin_vox), 0, spec.patch_shape).astype(int) for bound in (low, high)
            ]
            boxes.append(slices3(inner[0].tolist(), inner[1].tolist()))
    return boxes


def _labelled(ids: torch.Tensor, organs: Sequence[str]) -> torch.Tensor:
    """Class ids with everything but these organs and their tumors as background."""
    kept = torch.zeros_like(ids)
    for organ in organs:
        above = ids - organ_id(organ)  # 0 for the organ, 1 for its tumor; uint8 wraps around below
        kept |= above.clamp_(max=2).bitwise_right_shift_(1).sub_(1)  # all ones for those two, else zeros
    return ids & kept


def _finished(canvases: Sequence[_Canvas], device: torch.device) -> list[Rendered]:
    images, labels = ([_on_host(getattr(c, name)) for c in canvases] for name in ("image", "label"))
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    return [
        Rendered(image.numpy(), label.numpy(), tuple(c.masks[number] for number in sorted(c.masks)))
        for c, image, label in zip(canvases, images, labels, strict=True)
    ]


def _on_host(volume: torch.Tensor) -> torch.Tensor:
    """The volume in page-locked memory once the device is done; on a CPU itself."""
    if volume.device.type == "cpu":
        return volume
    host = torch.empty(volume.shape, dtype=volume.dtype, pin_memory=True)
    return host.copy_(volume, non_blocking=True)


# ---- who is worked on together ----


def _lesions(canvases: Sequence[_Canvas]) -> Iterator[_Job]:
    for canvas in canvases:
        for number, tumor in enumerate(canvas.spec.tumors):
            yield from _job(canvas, tumor, number, engine_of(tumor).extent_mm(tumor))
        for distractor in canvas.spec.distractors:
            yield from _job(canvas, distractor, None, engine_of(distractor).extent_mm(distractor))


def _around(jobs: Sequence[_Job]) -> Iterator[_Job]:
    for job in jobs:
        effect = job.tumor.mass_effect
        if effect:
            yield from _job(job.canvas, job.tumor, None, (effect.reach_mm,) * 3)


def _job(
    canvas: _Canvas, tumor: TumorSpec, number: int | None, extent_mm: tuple[float, float, float]
) -> Iterator[_Job]:
    """The voxels of the patch within `extent_mm` of the tumor's centre; nothing when it misses the patch."""
    extent = np.array(extent_mm) / canvas.case.spacing_mm + 1
    center = np.array(tumor.center_vox) - canvas.spec.origin_vox
    low = np.maximum(np.floor(center - extent), 0).astype(int)
    high = np.minimum(np.ceil(center + extent) + 1, canvas.spec.patch_shape).astype(int)
    if np.all(low < high):
        yield _Job(canvas, tumor, number, index3(low), index3(high))


def _groups(jobs: Iterator[_Job], device: torch.device) -> Iterator[list[_Job]]:
    """One job at a time on a CPU, whose caches hold one box; on a GPU many of like size and engine."""
    if device.type == "cpu":
        yield from ([job] for job in jobs)
        return
    alike: dict[tuple[object, ...], list[_Job]] = {}
    for job in jobs:
        coarse = is_coarse(job.tumor, job.canvas.case.spacing_mm)
        size = math.ceil(math.log2(max(job.size)))
        alike.setdefault((job.tumor.form.engine, coarse, size), []).append(job)
    for like in alike.values():
        most = max(1, _BATCH_VOXELS // math.prod(np.max([job.size for job in like], axis=0).tolist()))
        for start in range(0, len(like), most):
            yield like[start : start + most]


def _window(group: Sequence[_Job], device: torch.device) -> Window:
    size = index3(np.max([job.size for job in group], axis=0))
    corners = np.array([np.add(job.low, job.canvas.spec.origin_vox) for job in group], np.int64)
    return Window(tuple(job.canvas.case for job in group), corners, size, device)


# ---- what is done to them ----


def _push(group: Sequence[_Job], device: torch.device) -> None:
    """Mass effect: move the tissue around tumors."""
    window = _window(group, device)
    tumors = [job.tumor for job in group]
    warped = mass_effect(tumors, [t.mass_effect for t in tumors if t.mass_effect], window)
    hu = warped.hu.clamp_(*HU_RANGE).to(torch.int16)
    for b, job in enumerate(group):
        own, box = slices3((0, 0, 0), job.size), slices3(job.low, job.high)
        moved, image, label = warped.moved[b][own], job.canvas.image[box], job.canvas.label[box]
        image.copy_(torch.where(moved, hu[b][own], image))
        label.copy_(torch.where(moved, _labelled(warped.organs[b][own], job.canvas.spec.organs), label))


def _block_duct(job: _Job, device: torch.device) -> None:
    """Change the gland behind a tumor that blocks its duct: all of it, so that the patch does not matter, then cut."""
    canvas, effect = job.canvas, job.tumor.upstream
    if effect is None:
        return
    low, high = (bound - np.array(canvas.spec.origin_vox) for bound in gland_box(canvas.case, job.tumor.organ, effect))
    inner_low, inner_high = np.maximum(low, 0), np.minimum(high, canvas.spec.patch_shape)
    if np.any(inner_low >= inner_high):
        return
    window = _window([_Job(canvas, job.tumor, None, index3(low), index3(high))], device)
    box = slices3(inner_low.tolist(), inner_high.tolist())
    inner = slices3((inner_low - low).tolist(), (inner_high - low).tolist())
    shown = window.volume("ct", AIR_HU)[0].clone()
    shown[inner] = canvas.image[box]
    changed = behind_blocked_duct(job.tumor, effect, shown, window, canvas.spec.tumors)
    canvas.image[box] = changed.hu[inner].round_().clamp_(*HU_RANGE).to(torch.int16)
    canvas.label[box].masked_fill_(changed.gone[inner], 0)


@dataclass(frozen=True)
class _Formed:
    """What is tumor in a group's window, (B, X, Y, Z): depth in mm, share of tumor, label."""

    group: list[_Job]
    window: Window
    depth: torch.Tensor
    alpha: torch.Tensor
    masks: npt.NDArray[np.bool_]


def _formed(group: list[_Job], device: torch.device) -> _Formed:
    """Where a group's tumors are; those of which fewer than MIN_VOXELS fit are nowhere."""
    window = _window(group, device)
    tumors = [job.tumor for job in group]
    depth = engine_of(tumors[0]).depth_mm(tumors, window)
    alpha = shape.soft_mask(depth, window.parameter([t.edge_mm for t in tumors]))
    alpha.mul_(shape.room(tumors, window)).mul_(_in_patch(group, window))
    return _Formed(group, window, depth, alpha, _components(alpha, tumors, window))


def _paint(formed: _Formed, device: torch.device) -> None:
    """Put a group's tumors into image and label."""
    group, window, alpha, masks = formed.group, formed.window, formed.alpha, formed.masks
    if not masks.any():
        return
    tumors = [job.tumor for job in group]
    mask = torch.from_numpy(masks).to(device)
    profile = effects.profile(tumors, formed.depth, texture.structure(tumors, window), window)
    profile.add_(texture.level(tumors, profile, alpha, mask))
    healthy = _shown(group, window).to(torch.float32)
    tissue = texture.tissue(tumors, profile, healthy, window)
    blended = tissue.sub_(healthy).mul_(alpha).add_(healthy).round_().clamp_(*HU_RANGE).to(torch.int16)
    for b, job in enumerate(group):
        own, box = slices3((0, 0, 0), job.size), slices3(job.low, job.high)
        job.canvas.image[box] = torch.where(alpha[b][own] > 0, blended[b][own], job.canvas.image[box])
        if job.number is None or not masks[b].any():
            continue
        job.canvas.label[box].masked_fill_(mask[b][own], tumor_id(job.tumor.organ))
        job.canvas.masks[job.number] = Instance(job.tumor, box, masks[b][own])


def _in_patch(group: Sequence[_Job], window: Window) -> torch.Tensor | float:
    """1 inside each job's own box, 0 where the group's common box reaches over it."""
    if len(group) == 1:
        return 1.0
    inside = torch.zeros((len(group), *window.size), device=window.device)
    for b, job in enumerate(group):
        inside[b][slices3((0, 0, 0), job.size)] = 1
    return inside


def _components(alpha: torch.Tensor, tumors: Sequence[TumorSpec], window: Window) -> npt.NDArray[np.bool_]:
    """The voxels that are labelled, (B, X, Y, Z): at least half tumor, in one piece. What falls off is not painted."""
    masks = (alpha >= 0.5).cpu().numpy()
    for b, tumor in enumerate(tumors):
        mask, crumbs = shape.largest_component(masks[b])
        if np.count_nonzero(mask) < shape.MIN_VOXELS:
            masks[b] = False
            alpha[b] = 0
        elif crumbs:
            masks[b] = mask
            edge = round(tumor.edge_mm / window.spacing_mm) + 1
            alpha[b].mul_(shape.grown(torch.from_numpy(mask).to(window.device), edge))
    return masks


def _shown(group: Sequence[_Job], window: Window) -> torch.Tensor:
    """What the canvases show in the boxes, (B, X, Y, Z) int16."""
    boxes = [job.canvas.image[slices3(job.low, job.high)] for job in group]
    if len(boxes) == 1:
        return boxes[0][None]
    out = torch.zeros((len(group), *window.size), dtype=torch.int16, device=window.device)
    for b, box in enumerate(boxes):
        out[b][slices3((0, 0, 0), box.shape)] = box
    return out
