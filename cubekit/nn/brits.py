"""BRITS: fractions of classes from a series with gaps, which it fills on the way."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cubekit.errors import OptionError
from cubekit.nn.registry import register
from cubekit.nn.series import check_series

_PAPER = (
    "Cao et al. 2018, NeurIPS, https://doi.org/10.48550/arXiv.1805.10572; "
    "with ancillary data: 2024, IEEE JSTARS, https://doi.org/10.1109/JSTARS.2024.3359647"
)
_IMPUTATION, _LABELS, _CONSISTENCY = 0.25, 0.75, 0.1
_EMPTY = 1e-5  # keeps a month that nobody observed from dividing by zero


class Losses(NamedTuple):
    """What :func:`brits_loss` returns; all scalars."""

    total: Tensor
    """Sum of both directions and their disagreement: what training minimises."""

    imputation: Tensor
    """Weighted error at observed values, mean of the directions."""

    labels: Tensor
    """Weighted squared error of the fractions, mean of the directions."""


def time_gaps(mask: Tensor) -> Tensor:
    """Count the steps since each value was last observed.

    The first step counts 1; after that, ``1 + (1 - m[t-1]) * gap[t-1]``. For a reversed series pass the
    reversed mask.

    Parameters
    ----------
    mask : Tensor
        True where observed, shape ``(n, t, c)``.

    Returns
    -------
    Tensor
        Gaps, float32, shape ``(n, t, c)``; all ones without gaps.
    """
    step = torch.arange(mask.shape[1], device=mask.device)[:, None]
    # The step before the first one counts as observed: the first gap is one step long.
    seen = torch.where(mask.bool(), step, -1).cummax(dim=1).values
    gaps = torch.ones(mask.shape, device=mask.device)
    gaps[:, 1:] = (step[1:] - seen[:, :-1]).float()
    return gaps


@register("rits", task="fractions", form="series", paper=_PAPER)
class RITS(nn.Module):
    """Recurrent imputation and estimation in one direction of time.

    At every step the last state predicts the values, the other bands of the same step correct the
    prediction, observed values replace it, and the completed values drive an LSTM cell whose state fades
    with the length of the gap. The last state, joined with embedded ancillary variables, gives the
    fractions. Values that are not observed have no influence at all. Attributes carry the names of the
    published weight files. With 7 bands: 4 classes and 9 ancillary variables 64,128 parameters; 10 classes
    and none 49,134. After Cao et al. 2018 (https://doi.org/10.48550/arXiv.1805.10572).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    classes : int
        Number of classes, ``k``.
    steps : int, optional
        Number of steps in training; the network takes any.
    ancillary : int, optional
        Number of ancillary variables, ``a``; without them the last state is used alone.
    hidden : int, optional
        Width of the state.
    embedding : int, optional
        Width of the embedded ancillary variables.

    Notes
    -----
    The off-diagonal weights of ``temp_decay_x`` and the diagonal ones of ``feat_reg`` are kept for the sake
    of weight files and have no effect. Everything that does not depend on the state (decays, the mixing
    weight, the mask's share of the gates) is computed for all steps at once; a step costs three small
    matrix products.
    """

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        steps: int | None = None,
        ancillary: int = 0,
        hidden: int = 100,
        embedding: int = 50,
    ) -> None:
        super().__init__()
        self.bands, self.steps, self.ancillary = bands, steps, ancillary
        self.rnn_cell = nn.LSTMCell(2 * bands, hidden)
        self.temp_decay_h = _Masked(bands, hidden)
        self.temp_decay_x = _Masked(bands, bands, keep=torch.eye(bands))
        self.hist_reg = nn.Linear(hidden, bands)
        self.feat_reg = _Masked(bands, bands, keep=1 - torch.eye(bands))
        self.weight_combine = nn.Linear(2 * bands, bands)
        self.ancillary_embed = nn.Linear(ancillary, embedding) if ancillary else None
        self.concat = nn.Linear(hidden + embedding, hidden) if ancillary else None
        self.out = nn.Linear(hidden, classes)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, ancillary: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Estimate fractions and fill gaps.

        Parameters
        ----------
        x : torch.Tensor
            Standardised series ``(n, t, c)``, float; anything where not observed.
        mask : torch.Tensor, optional
            True where observed, ``(n, t, c)`` or ``(n, t)``; without it, where `x` is finite.
        ancillary : torch.Tensor, optional
            Standardised ancillary variables ``(n, a)``; needed if the network was built with them.

        Returns
        -------
        dict of str to torch.Tensor
            ``fractions`` ``(n, k)``, sums to one; ``imputed`` ``(n, t, c)``, observed values unchanged;
            ``imputation_error``, scalar: error of the three predictions at observed values, summed over
            steps.

        Raises
        ------
        OptionError
            If shapes do not fit, or ancillary variables are missing or were not expected.
        """
        check_series(x, bands=self.bands)
        self._check_ancillary(x, ancillary)
        observed = _value_mask(x, mask)
        series = (torch.where(observed, x, 0.0), observed.to(x.dtype), time_gaps(observed).to(x.dtype))
        # Time first: every step is then one block of memory.
        values, m, gaps = (part.transpose(0, 1).contiguous() for part in series)
        state, guesses, imputed = self._recur(values, m, gaps)
        weight = m.sum(dim=(1, 2)) + _EMPTY
        error = sum(((values - guess) * m).abs().sum(dim=(1, 2)) / weight for guess in guesses)
        return {
            "fractions": self._estimate(state, ancillary),
            "imputed": imputed.transpose(0, 1),
            "imputation_error": torch.as_tensor(error).sum(),
        }

    def _recur(self, x: Tensor, m: Tensor, gaps: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Run over the steps; series are ``(t, n, c)`` here.

        Returns the last state, the predictions from history, features and both, and the completed series.
        """
        bands = self.bands
        fade_h, fade_x = self.temp_decay_h.fade(gaps), self.temp_decay_x.fade(gaps)
        alpha = self.weight_combine(torch.cat([fade_x, m], dim=-1))
        from_state, bias, from_values = self._stacked_weights()
        feature_weight, feature_bias = self.feat_reg.effective_weight().t(), self.feat_reg.b
        h = c = x.new_zeros(x.shape[1], self.rnn_cell.hidden_size)
        collected: list[tuple[Tensor, ...]] = []
        for xt, mt, fade, mix in zip(x, m, fade_h, alpha, strict=True):
            stacked = torch.addmm(bias, torch.cat([h * fade, mt], dim=1), from_state)
            xh = stacked[:, :bands]
            zh = torch.addmm(feature_bias, torch.lerp(xh, xt, mt), feature_weight)
            ch = torch.lerp(xh, zh, mix)
            cc = torch.lerp(ch, xt, mt)
            h, c = _lstm_step(torch.addmm(stacked[:, bands:], cc, from_values), c)
            collected.append((xh, zh, ch, cc))
        history, features, mixed, completed = (torch.stack(steps) for steps in zip(*collected, strict=True))
        return h, (history, features, mixed), completed

    def _stacked_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arrange weights so that one product of state and mask gives prediction and gates.

        Returns the weights of state and mask ``(hidden + c, c + 4 hidden)``, their bias, and the gates'
        weights of the values ``(c, 4 hidden)``. The candidate's share is doubled: see :func:`_lstm_step`.
        """
        cell, bands = self.rnn_cell, self.bands
        double = torch.ones(4, cell.hidden_size, 1, dtype=cell.weight_hh.dtype, device=cell.weight_hh.device)
        double[2] = 2.0
        double = double.flatten(0, 1)
        gates = torch.cat([cell.weight_hh, cell.weight_ih[:, bands:]], dim=1) * double
        guess = nn.functional.pad(self.hist_reg.weight, (0, bands))  # the mask has no say in the prediction
        bias = torch.cat([self.hist_reg.bias, (cell.bias_ih + cell.bias_hh) * double[:, 0]])
        return torch.cat([guess, gates]).t(), bias, (cell.weight_ih[:, :bands] * double).t()

    def _estimate(self, state: Tensor, ancillary: Tensor | None) -> Tensor:
        if self.ancillary_embed is not None and self.concat is not None and ancillary is not None:
            context = self.ancillary_embed(ancillary).relu()
            state = self.concat(torch.cat([state, context], dim=1)).relu()
        scores: Tensor = self.out(state)
        return scores.softmax(dim=1)

    def _check_ancillary(self, x: Tensor, ancillary: Tensor | None) -> None:
        found = (x.shape[0], 0) if ancillary is None else tuple(ancillary.shape)
        if found != (x.shape[0], self.ancillary):
            raise OptionError(
                f"ancillary has shape {found}, expected {(x.shape[0], self.ancillary)}: as many variables as "
                "the network was built with (ancillary=)."
            )


@register("brits", task="fractions", form="series", paper=_PAPER)
class BRITS(nn.Module):
    """Two RITS, one on the series and one on the reversed series, averaged.

    With 7 bands: 127,856 parameters for 4 classes and 5 ancillary variables; 128,256 for 4 and 9; 129,468
    for 10 and 9; 97,056 for 4 classes and none. After Cao et al. 2018
    (https://doi.org/10.48550/arXiv.1805.10572).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    classes : int
        Number of classes, ``k``.
    steps : int, optional
        Number of steps in training; the network takes any.
    ancillary : int, optional
        Number of ancillary variables, ``a``.
    hidden : int, optional
        Width of the state of either direction.
    embedding : int, optional
        Width of the embedded ancillary variables.
    """

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        steps: int | None = None,
        ancillary: int = 0,
        hidden: int = 100,
        embedding: int = 50,
    ) -> None:
        super().__init__()
        self.rits_f, self.rits_b = (
            RITS(
                bands=bands,
                classes=classes,
                steps=steps,
                ancillary=ancillary,
                hidden=hidden,
                embedding=embedding,
            )
            for _ in range(2)
        )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, ancillary: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Estimate fractions and fill gaps.

        Parameters
        ----------
        x : torch.Tensor
            Standardised series ``(n, t, c)``, float; anything where not observed.
        mask : torch.Tensor, optional
            True where observed, ``(n, t, c)`` or ``(n, t)``; without it, where `x` is finite.
        ancillary : torch.Tensor, optional
            Standardised ancillary variables ``(n, a)``; needed if the network was built with them.

        Returns
        -------
        dict of str to torch.Tensor
            ``fractions`` ``(n, k)`` and ``imputed`` ``(n, t, c)``, means of the directions in forward order
            of time; ``fractions_forward`` and ``fractions_backward``; ``imputation_error``, scalar, mean of
            the directions; ``disagreement``, scalar: mean absolute difference of the two completed series.

        Raises
        ------
        OptionError
            If shapes do not fit, or ancillary variables are missing or were not expected.
        """
        check_series(x, bands=self.rits_f.bands)
        observed = _value_mask(x, mask)
        forward = self.rits_f(x, observed, ancillary)
        backward = self.rits_b(x.flip(1), observed.flip(1), ancillary)
        imputed = backward["imputed"].flip(1)
        return {
            "fractions": (forward["fractions"] + backward["fractions"]) / 2,
            "imputed": (forward["imputed"] + imputed) / 2,
            "fractions_forward": forward["fractions"],
            "fractions_backward": backward["fractions"],
            "imputation_error": (forward["imputation_error"] + backward["imputation_error"]) / 2,
            "disagreement": (forward["imputed"] - imputed).abs().mean(),
        }


def brits_loss(output: dict[str, Tensor], target: Tensor) -> Losses:
    """Loss of BRITS or RITS.

    Per direction 0.25 times the imputation error plus 0.75 times the squared error of the fractions (summed
    over classes, mean over samples); for BRITS the two directions are added, and 0.1 times their
    disagreement.

    Parameters
    ----------
    output : dict of str to torch.Tensor
        What the network returned.
    target : torch.Tensor
        True fractions ``(n, k)``.

    Returns
    -------
    Losses
        The total, and its parts as means over the directions.
    """
    names = ("fractions_forward", "fractions_backward")
    directions = [output[name] for name in names if name in output] or [output["fractions"]]
    squared = sum((target - fractions).square().sum() for fractions in directions) / len(directions)
    labels = _LABELS * torch.as_tensor(squared) / (len(target) + _EMPTY)
    imputation = _IMPUTATION * output["imputation_error"]
    total = len(directions) * (imputation + labels)
    if "disagreement" in output:
        total = total + _CONSISTENCY * output["disagreement"]
    return Losses(total, imputation, labels)


class _Masked(nn.Module):
    """Linear layer, of whose weights only those under ``keep`` count; uniform start as published."""

    W: nn.Parameter
    b: nn.Parameter
    m: Tensor

    def __init__(self, inputs: int, outputs: int, *, keep: Tensor | None = None) -> None:
        super().__init__()
        bound = outputs**-0.5
        self.W = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        if keep is not None:
            self.register_buffer("m", keep)
        self.partial = keep is not None

    def effective_weight(self) -> Tensor:
        return self.W * self.m if self.partial else self.W

    def fade(self, gaps: Tensor) -> Tensor:
        """Decay ``exp(-relu(W gap + b))``."""
        return nn.functional.linear(gaps, -self.effective_weight(), -self.b).clamp(max=0).exp()


def _lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Turn gates (input, forget, candidate, output, as in torch) and memory into state and memory.

    The candidate comes doubled, as ``tanh(g) = 2 sigmoid(2 g) - 1``: one sigmoid over everything costs half
    of what a sigmoid and a tanh do.
    """
    i, f, g, o = gates.sigmoid().chunk(4, dim=1)
    c = f * c + i * (2 * g - 1)
    return o * c.tanh(), c


def _value_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x.isfinite()
    if mask.shape not in (x.shape, x.shape[:2]):
        raise OptionError(
            f"mask has shape {tuple(mask.shape)}, the series {tuple(x.shape)}. Pass (n, t, c) or (n, t)."
        )
    return (mask if mask.ndim == x.ndim else mask.unsqueeze(-1)).bool().expand_as(x)
