"""claims.yaml: the paper's claims, the rules that judge them, published numbers and deviations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from trained_binarization.settings import Identifier, Positive, Sentence, Settings, load
from trained_binarization.study import Seeds, Study

Outcome = Literal[
    "exceeded",
    "reproduced",
    "not reproduced",
    "helps",
    "hurts",
    "no effect larger than delta",
    "surpasses",
    "does not surpass",
    "inconclusive",
    "void by construction",
    "exploratory",
    "not comparable",
    "not run",
]
Meaning = Literal["reached", "contradicted", "open"]
Parameters = Annotated[int, Field(gt=0, le=10**15)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Paper(Settings):
    """The paper that is replicated."""

    title: Sentence
    authors: Sentence
    venue: Sentence
    arxiv: Sentence


class Rules(Settings):
    """What every judgement shares; the rules themselves stand in words at the head of claims.yaml."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    seeds: Annotated[int, Field(ge=2, le=1000)]
    outcomes: dict[Outcome, Meaning]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [outcome for outcome in get_args(Outcome) if outcome not in self.outcomes]
        if missing:
            raise ValueError(f"outcomes: found no '{missing[0]}'; allowed: every outcome of the rules, each once")
        return self


class NetworkFacts(Settings):
    """A network at full width: how it is called, and its parameters without scaling factors."""

    title: Sentence
    parameters: Parameters
    binary_parameters: Parameters

    @property
    def bytes_float(self) -> int:
        """Model size in bytes with 32 bits a parameter."""
        return 4 * self.parameters

    @property
    def bytes_one_bit(self) -> int:
        """Model size in bytes with one bit a binary weight, 32 any other parameter."""
        return 4 * (self.parameters - self.binary_parameters) + self.binary_parameters // 8


class _Claim(Settings):
    sentence: Sentence
    network: Identifier
    dataset: Identifier
    metric: Sentence
    where: Sentence
    study: Identifier  # the one study that can fill the claim's cell


class AccuracyClaim(_Claim):
    """A network reaches an accuracy: value in percent, delta in points."""

    kind: Literal["accuracy"]
    value: Percent
    delta: Positive


class HelpsClaim(_Claim):
    """An ingredient improves the network: the ablation leaves it out; delta in points."""

    kind: Literal["helps"]
    ablation: Identifier
    delta: Positive


class SurpassesClaim(_Claim):
    """The method's accuracy is above the best of the published numbers marked `previous`."""

    kind: Literal["surpasses"]


Claim = Annotated[AccuracyClaim | HelpsClaim | SurpassesClaim, Field(discriminator="kind")]


class Contrast(Settings):
    """One confirmatory question: accuracy of variant `plus` minus that of `minus`; delta in points."""

    plus: Identifier
    minus: Identifier
    delta: Positive
    asks: Sentence


class Family(Settings):
    """The contrasts of one study that are judged together, declared before its runs."""

    network: Identifier
    seeds: Seeds
    most: Annotated[int, Field(ge=2, le=100)] | None = None  # seeds at most, where their number follows from the spread
    half_width: Positive | None = None  # points, of the primary interval that `most` aims at
    contrasts: Annotated[dict[Identifier, Contrast], Field(min_length=1)]


class Invariance(Settings):
    """Networks whose function does not depend on scaling factors, and the ablations that should therefore be void."""

    networks: list[Identifier]
    ablations: list[Identifier]


class Published(Settings):
    """An accuracy in percent as printed elsewhere. Bits: of weights / of activations."""

    network: Identifier
    dataset: Identifier
    name: Sentence
    year: Annotated[int, Field(ge=1900, le=2100)]
    bits: Annotated[str, Field(pattern=r"^[0-9]+/[0-9]+$", max_length=5)]
    structure: Literal["plain", "other", "unstated"]
    top1: Percent
    top5: Percent | None = None
    source: Identifier
    previous: bool
    note: Sentence | None = None


class Deviation(Settings):
    """Where this replication cannot follow the paper, or chooses for it."""

    what: Sentence
    paper: Sentence
    here: Sentence
    reason: Sentence


class Claims(Settings):
    """The whole of claims.yaml."""

    paper: Paper
    rules: Rules
    networks: dict[Identifier, NetworkFacts]
    claims: Annotated[dict[Identifier, Claim], Field(min_length=1)]
    families: dict[Identifier, Family]  # by study
    invariance: Invariance
    sources: dict[Identifier, Sentence]
    published: list[Published]
    deviations: list[Deviation]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for number, row in enumerate(self.published):
            if row.source not in self.sources:
                allowed = ", ".join(self.sources)
                raise ValueError(f"published.{number}.source: found '{row.source}'; allowed: {allowed}")
        for name, claim in self.claims.items():
            if claim.network not in self.networks:
                allowed = ", ".join(self.networks)
                raise ValueError(f"claims.{name}.network: found '{claim.network}'; allowed: {allowed}")
            if claim.kind == "surpasses" and not self.previous(claim.network, claim.dataset):
                raise ValueError(
                    f"claims.{name}: found no published number to surpass; allowed: one with previous: true"
                )
        return self

    def title(self, network: str) -> str:
        """The network's name as papers print it."""
        return self.networks[network].title if network in self.networks else network

    def previous(self, network: str, dataset: str) -> list[Published]:
        """The declared set of previous works on a network and data set."""
        return [row for row in self.published if row.previous and (row.network, row.dataset) == (network, dataset)]

    def of_networks(self, study: Study) -> Iterator[tuple[str, AccuracyClaim | HelpsClaim | SurpassesClaim]]:
        """The claims about networks that the study trains (and, for ingredients, ablations that it has)."""
        for name, claim in self.claims.items():
            if claim.network in study.networks and (claim.kind != "helps" or claim.ablation in study.ablations):
                yield name, claim


def load_claims(path: Path) -> Claims:
    """The content of claims.yaml; UserError with one line for the first thing that is wrong in it."""
    return load(path, Claims)
