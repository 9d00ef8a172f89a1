"""Vision transformers by name, built by timm. The only module that imports timm, and only when a network is built."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.data.base import InputKind
from trainables.errors import ConfigError, WeightsError, unknown
from trainables.models.base import BACKBONES, Backbone
from trainables.models.torchvision_shim import ensure_importable
from trainables.models.upsample import BilinearUpsample

LEVELS = 4
"""Feature levels that a decoder reads."""

TIMM_PREFIX = "timm:"
"""``timm:NAME`` as a backbone is timm's vision transformer of that name."""

_TIMM_MODULES = ("vision_transformer", "deit")
# Parts of a classifier. The networks here have none, so these entries of a weight file are left out.
_CLASSIFIER = ("head.", "head_dist.", "fc_norm.", "attn_pool.", "pre_logits.")


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a vision transformer without building it; a :class:`trainables.models.base.Backbone`.

    Attributes:
        name: as a config writes it.
        timm_name: of the timm model that is built.
        dim: width of a token.
        depth: number of transformer blocks.
        heads: attention heads.
        patch: side of a square patch, in pixels.
        base_parameters: parameters of the trunk without classifier and position embedding.
        class_positions: tokens beside the patches that have a position embedding.
        repo: Hugging Face repository of the published weights; ``None`` where there are none.
        overrides: names and values of arguments that differ from the timm model's own.
    """

    name: str
    timm_name: str
    dim: int
    depth: int
    heads: int
    patch: int
    base_parameters: int
    class_positions: int = 1
    repo: str | None = None
    overrides: tuple[tuple[str, float], ...] = ()

    inputs: ClassVar[InputKind] = "images"

    @property
    def feature_blocks(self) -> tuple[int, ...]:
        """Blocks (counted from 1) whose tokens are read: after a quarter, half, three quarters and all of them."""
        return tuple(self.depth * level // LEVELS for level in range(1, LEVELS + 1))

    @property
    def feature_channels(self) -> int:
        """Channels of the concatenated feature levels."""
        return LEVELS * self.dim

    def grid(self, image_shape: tuple[int, int]) -> tuple[int, int]:
        """(H/p, W/p) of an image of (H, W) pixels; raises :class:`ConfigError` where the patch does not divide it."""
        height, width = image_shape
        if height < 1 or width < 1 or height % self.patch or width % self.patch:
            raise ConfigError(
                f"model.backbone: {self.name} cuts images into patches of {self.patch}x{self.patch} pixels; "
                f"{height}x{width} is not a multiple of that"
            )
        return height // self.patch, width // self.patch

    def parameter_count(self, image_shape: tuple[int, int]) -> int:
        """Parameters of the trunk for images of (H, W) pixels, position embedding included."""
        rows, columns = self.grid(image_shape)
        return self.base_parameters + (rows * columns + self.class_positions) * self.dim

    @property
    def about(self) -> str:
        """One line for lists."""
        millions = self.base_parameters / 1e6
        return f"{self.depth} blocks of {self.dim}, patch {self.patch}, {millions:.2f} million parameters"

    def operations(self, image_shape: tuple[int, int]) -> float:
        """About how many multiplications one forward of one image takes: weights by patches, attention left out."""
        rows, columns = self.grid(image_shape)
        return float(self.base_parameters * rows * columns)

    def build(self, image_shape: tuple[int, int], drop_path: float) -> nn.Module:
        """As :func:`build_trunk`."""
        return build_trunk(self, image_shape, drop_path)

    def features(self, trunk: nn.Module, images: Tensor, image_shape: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) to (B, 4 * dim, H/p, W/p): the tokens of four depths on the channels, class token left out."""
        tokens = torch.cat(trunk_levels(trunk, self, images), dim=-1)
        # Contiguous: the convolutions and their gradients are then one matrix product per image.
        return tokens.transpose(1, 2).contiguous().unflatten(2, self.grid(image_shape))

    def stages(self, trunk: nn.Module) -> list[nn.Module]:
        """The embedding of patches and every block."""
        vit: Any = trunk
        return [vit.norm_pre, *vit.blocks]

    def upsample(self, image_shape: tuple[int, int]) -> nn.Module:
        """Bilinear, from the grid of patches to the image."""
        return BilinearUpsample(self.grid(image_shape), image_shape)


# The smallest that still has four feature levels: forward and backward of eight 64x64 images with eleven decoders take
# about 24 ms on one core. Hidden layers twice as wide as a token, not four times as wide, save a third of its time.
VIT_PICO = BackboneSpec(
    name="vit_pico",
    timm_name="vit_tiny_patch16_384",
    dim=96,
    depth=4,
    heads=3,
    patch=8,
    base_parameters=317_952,
    overrides=(("embed_dim", 96), ("depth", 4), ("num_heads", 3), ("patch_size", 8), ("mlp_ratio", 2.0)),
)


def published(name: str, dim: int, depth: int, heads: int, base_parameters: int) -> BackboneSpec:
    """The spec of a 16-pixel ViT trained on ImageNet-21k, then fine-tuned on ImageNet-1k at 384 pixels ("augreg")."""
    timm_name = f"{name}_patch16_384.augreg_in21k_ft_in1k"
    return BackboneSpec(name, timm_name, dim, depth, heads, 16, base_parameters, repo=f"timm/{timm_name}")


def backbone_spec(name: str) -> Backbone:
    """The backbone of that name, registered or ``timm:NAME``.

    Raises:
        ConfigError: there is none; the message names the nearest one.
    """
    if name.startswith(TIMM_PREFIX):
        return _timm_spec(name)
    if name not in BACKBONES:
        raise ConfigError(f"model.backbone: {unknown('backbone', name, [*BACKBONES, TIMM_PREFIX + 'NAME'])}")
    return BACKBONES[name]


def build_trunk(spec: BackboneSpec, image_shape: tuple[int, int], drop_path: float = 0.0) -> nn.Module:
    """A timm ``VisionTransformer`` without classifier, randomly initialised from torch's default generator.

    Args:
        spec: which one.
        image_shape: (H, W) in pixels; decides the size of the position embedding.
        drop_path: rate of stochastic depth at the last block; it grows linearly from 0 at the first.

    Raises:
        ConfigError: the patch does not divide ``image_shape``.
    """
    spec.grid(image_shape)
    return _create(spec.timm_name, img_size=tuple(image_shape), drop_path_rate=drop_path, **dict(spec.overrides))


def trunk_levels(trunk: nn.Module, spec: BackboneSpec, images: Tensor) -> list[Tensor]:
    """Patch tokens of the feature levels, four times (B, N, dim): three raw, the last through the final LayerNorm.

    ``images`` is (B, 3, H, W) of the size the trunk was built for.
    """
    vit: Any = trunk
    raw = [block - 1 for block in spec.feature_blocks[:-1]]
    final, levels = vit.forward_intermediates(images, indices=raw, output_fmt="NLC")
    return [*levels, final[:, vit.num_prefix_tokens :]]


@dataclass(frozen=True)
class Fit:
    """What became of a file's entries.

    Attributes:
        loaded: how many were copied.
        skipped: names of those that are of a classifier.
        resized: what was resized, from which shape to which.
    """

    loaded: int
    skipped: tuple[str, ...]
    resized: tuple[str, ...]

    def __str__(self) -> str:
        skipped = f"skipped {', '.join(self.skipped)}" if self.skipped else "skipped nothing"
        resized = f"resized {', '.join(self.resized)}" if self.resized else "resized nothing"
        return f"loaded {self.loaded} tensors, {skipped}, {resized}"


def load_state(trunk: nn.Module, spec: BackboneSpec, state: Mapping[str, Tensor], source: str) -> Fit:
    """Copy published weights into ``trunk``, its position embedding bicubically resized where the sizes differ.

    Args:
        trunk: from :func:`build_trunk`.
        spec: of the trunk.
        state: name to tensor, as timm and the releases that timm converts name them; classifier entries are left out.
        source: for messages.

    Returns:
        What was copied, left out and resized.

    Raises:
        WeightsError: an entry is missing, has another shape, or is not of this backbone.
    """
    _timm()
    from timm.models.vision_transformer import checkpoint_filter_fn

    problem = f"{source}: not weights of {spec.name}"
    patches = state.get("patch_embed.proj.weight")
    # timm would resample patches of another size, which makes another model of them.
    if patches is not None and patches.ndim == 4 and tuple(patches.shape[2:]) != (spec.patch, spec.patch):
        raise WeightsError(
            f"{problem}: its patches are {patches.shape[2]}x{patches.shape[3]}, not {spec.patch}x{spec.patch}"
        )
    try:
        fitted = dict(checkpoint_filter_fn(dict(state), trunk, adapt_layer_scale=True))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{problem}: {_first_line(error)}") from None
    wanted = trunk.state_dict()
    # Models that average tokens before their last LayerNorm call it fc_norm; without a classifier it is the final norm.
    for name in ("norm.weight", "norm.bias"):
        if name in wanted and name not in fitted and f"fc_{name}" in fitted:
            fitted[name] = fitted.pop(f"fc_{name}")
    skipped = tuple(name for name in fitted if name not in wanted and name.startswith(_CLASSIFIER))
    fitted = {name: value for name, value in fitted.items() if name not in skipped}
    _compare(wanted, fitted, problem)
    trunk.load_state_dict(fitted)
    resized = tuple(
        f"{name} {tuple(state[name].shape)} to {tuple(value.shape)}"
        for name, value in fitted.items()
        if name in state and state[name].shape != value.shape
    )
    return Fit(len(fitted), skipped, resized)


def load_npz(trunk: nn.Module, path: str) -> None:
    """Copy an original JAX ``.npz`` release into ``trunk``, which has the grid size that the file was trained with."""
    vit: Any = trunk
    with torch.no_grad():
        vit.load_pretrained(path)


def _compare(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], problem: str) -> None:
    missing = [name for name in wanted if name not in given]
    if missing:
        raise WeightsError(f"{problem}: '{missing[0]}' is missing" + _more(missing))
    extra = [name for name in given if name not in wanted]
    if extra:
        raise WeightsError(f"{problem}: '{extra[0]}' is not part of it" + _more(extra))
    for name, value in wanted.items():
        if given[name].shape != value.shape:
            raise WeightsError(f"{problem}: '{name}' is {tuple(given[name].shape)}, {tuple(value.shape)} is wanted")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _timm() -> Any:
    ensure_importable()
    import timm

    return timm


def _create(timm_name: str, **arguments: Any) -> nn.Module:
    # pretrained=False, for timm would go to the network. Without pooling and classes all parameters serve the features.
    model: nn.Module = _timm().create_model(timm_name, pretrained=False, num_classes=0, global_pool="", **arguments)
    return model


@functools.lru_cache(maxsize=64)
def _timm_spec(name: str) -> BackboneSpec:
    timm = _timm()
    timm_name = name.removeprefix(TIMM_PREFIX)
    architecture, _, tag = timm_name.partition(".")
    known = [n for module in _TIMM_MODULES for n in timm.list_models(module=module) if "distilled" not in n]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=1, cutoff=0.6)
        hint = f"; did you mean '{TIMM_PREFIX}{near[0]}'?" if near else ""
        raise ConfigError(f"model.backbone: unknown timm vision transformer '{architecture}'{hint}")
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ConfigError(f"model.backbone: {unknown(f'weights of timm:{architecture}', tag, tags)}")
    with torch.device("meta"):
        vit: Any = _create(timm_name)
    depth = len(vit.blocks)
    patch, other_side = vit.patch_embed.patch_size
    if patch != other_side or depth < LEVELS:
        raise ConfigError(f"model.backbone: {name} does not have square patches and at least {LEVELS} blocks")
    positions = vit.pos_embed.shape[1] - vit.patch_embed.num_patches if vit.pos_embed is not None else 0
    embedded = vit.pos_embed.numel() if vit.pos_embed is not None else 0
    published_as = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    return BackboneSpec(
        name=name,
        timm_name=timm_name,
        dim=vit.embed_dim,
        depth=depth,
        heads=next(part.num_heads for part in vit.blocks[0].modules() if hasattr(part, "num_heads")),
        patch=patch,
        base_parameters=sum(p.numel() for p in vit.parameters()) - embedded,
        class_positions=positions,
        repo=(published_as.hf_hub_id or None) if published_as is not None else None,
    )
