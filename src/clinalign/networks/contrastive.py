"""The contrastive loss of an image-text pair, with wrong texts as hard negatives.

For image i with true text t(i), over the distinct texts T of the batch and of its flips:

    L_image = -log exp(s <u_i, v_t(i)>) / sum_{t in T, t not also true of i} exp(s <u_i, v_t>)
    L_text  = -log exp(s <u_i, v_t(i)>) / sum_{j, t(i) not also true of j, or j = i} exp(s <u_j, v_t(i)>)
    L = (L_image + L_text) / 2

symmetric InfoNCE (Radford et al., 2021) with a learnt scale s. Hard negatives in the denominator of the image side are
those of NegCLIP (Yuksekgonul et al., ICLR 2023): without them a model matches words and pictures as bags, and does not
notice which side a finding is on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from clinalign.networks.image_text import ImageTextPair
from clinalign.networks.pair_texts import PairTexts
from clinalign.networks.text_encoder import tokenize

SAME = ("text", "attributes")


def same_facts(facts: torch.Tensor) -> torch.Tensor:
    """Return ``(B, B)`` bool: two cases know the same attributes and answer them alike; ``facts`` ``(B, K)``.

    A case of which nothing is known is like no other.
    """
    alike: torch.Tensor = (facts[:, None] == facts[None]).all(dim=2) & (facts >= 0).any(dim=1)[:, None]
    return alike


def info_nce(
    images: torch.Tensor,
    texts: torch.Tensor,
    own: torch.Tensor,
    also_true: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Return the loss above.

    Args:
        images: ``(B, D)`` unit vectors.
        texts: ``(T, D)`` unit vectors of the distinct texts.
        own: ``(B,)`` row in ``texts`` of each image's true text.
        also_true: ``(B, T)`` bool, texts that may be true of an image besides its own: neither target nor negative.
        scale: The inverse temperature.
    """
    logits = scale * images @ texts.T
    rows = torch.arange(len(images), device=images.device)
    hidden = also_true.clone()
    hidden[rows, own] = False
    by_image = F.cross_entropy(logits.masked_fill(hidden, -torch.inf), own)
    true = also_true.clone()
    true[rows, own] = True
    shared = true[:, own].T  # row i: the images j of which the text of i is true; none of them but i counts
    shared[rows, rows] = False
    by_text = F.cross_entropy(logits[:, own].T.masked_fill(shared, -torch.inf), rows)
    return (by_image + by_text) / 2


class ContrastiveLoss:
    """The loss as :func:`clinalign.networks.fit.fit` calls it: image embeddings, and case numbers as labels.

    Args:
        model: The pair; its text side is computed here.
        pairs: Texts of the training cases.
        flips: Hard negatives drawn for each case and step.
        same: ``text``: cases with the same text are not each other's negatives; ``attributes``: nor are those with the
            same known attributes, for free reports that say one thing in many ways.
        generator: Draws the flips.
    """

    def __init__(
        self, model: ImageTextPair, pairs: PairTexts, flips: int, same: str, generator: torch.Generator
    ) -> None:
        self.model, self.pairs, self.count, self.same, self.generator = model, pairs, flips, same, generator
        self.ids, self.mask = tokenize(model.tokenizer, pairs.texts)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: ``images`` ``(B, D)`` embeddings, ``labels`` ``(B, 1)`` case numbers."""
        cases = labels[:, 0].long().cpu()
        chosen, place = torch.unique(torch.cat([self.pairs.own[cases], self._draw(cases)]), return_inverse=True)
        own = place[: len(cases)]
        longest = int(self.mask[chosen].sum(dim=1).max())
        texts = self.model.encode_tokens(
            self.ids[chosen, :longest].to(images.device), self.mask[chosen, :longest].to(images.device)
        )
        also_true = torch.zeros(len(cases), len(chosen), dtype=torch.bool)
        if self.same == "attributes":
            # the text of a case with the same facts is not wrong of this one, unless it is one of its own flips
            row, other = torch.nonzero(same_facts(self.pairs.facts[cases]), as_tuple=True)
            also_true[row, own[other]] = True
            flips = self.pairs.flips[cases]
            also_true &= ~(flips[:, :, None] == chosen[None, None]).any(dim=1)
        device = images.device
        return info_nce(images, texts, own.to(device), also_true.to(device), self.model.scale)

    def _draw(self, cases: torch.Tensor) -> torch.Tensor:
        """Draw up to ``count`` flips of each case, each at its own rate; returns their numbers."""
        table = self.pairs.flips[cases]
        if not self.count or not table.shape[1]:
            return torch.empty(0, dtype=torch.long)
        left_out = torch.rand(table.shape, generator=self.generator) >= self.pairs.rates[cases]
        order = torch.rand(table.shape, generator=self.generator).masked_fill(left_out, 2.0).argsort(dim=1)
        drawn = table.masked_fill(left_out, -1).gather(1, order[:, : self.count])
        return drawn[drawn >= 0]


def flip_score(model: ImageTextPair, pairs: PairTexts) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]:
    """Return the validation score: mean over kinds of the share of flips that score below the true text.

    It takes ``(image embeddings, case numbers, known)``. Where no text can be flipped it is the share of images nearer
    to their own text than to another case's.
    """
    ids, mask = tokenize(model.tokenizer, pairs.texts)

    def score(images: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> float:
        with torch.no_grad():
            parts = zip(torch.split(ids, 512), torch.split(mask, 512))
            texts = torch.cat([model.encode_tokens(i.to(model.device), m.to(model.device)).cpu() for i, m in parts])
        cases = labels[:, 0].long()
        own = pairs.own[cases]
        cosines = images @ texts.T
        true = cosines.gather(1, own[:, None])
        flips = pairs.flips[cases]
        won = (true > cosines.gather(1, flips.clamp_min(0))).float() if flips.shape[1] else torch.zeros(0)
        by_kind: dict[str, list[float]] = {}
        for row, case in enumerate(cases.tolist()):
            for column, kind in enumerate(pairs.kinds[case]):
                by_kind.setdefault(kind, []).append(won[row, column].item())
        if by_kind:
            return sum(sum(values) / len(values) for values in by_kind.values()) / len(by_kind)
        others = own[:, None] != own[None]
        return float((true > cosines[:, own])[others].float().mean())  # NaN where all texts are one

    return score
