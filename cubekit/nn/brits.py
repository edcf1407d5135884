"""BRITS: fractions of classes from a series with gaps, which it fills on the way."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

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

    output_layers: ClassVar = ("out",)
    """What belongs to the classes, and is replaced where they change."""

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
        observed = _value_mask(x, mask)
        found = _recur((self,), x[None], observed[None])
        return {
            "fractions": self.estimate(found.state[0], ancillary),
            "imputed": found.completed[0],
            "imputation_error": found.error[0],
        }

    def estimate(self, state: Tensor, ancillary: Tensor | None) -> Tensor:
        """Turn the last state into fractions.

        Parameters
        ----------
        state : torch.Tensor
            Last state of the series ``(n, hidden)``.
        ancillary : torch.Tensor or None
            Standardised ancillary variables ``(n, a)``.

        Returns
        -------
        torch.Tensor
            Fractions ``(n, k)``.

        Raises
        ------
        OptionError
            If ancillary variables are missing or were not expected.
        """
        self._check_ancillary(state, ancillary)
        if self.ancillary_embed is not None and self.concat is not None and ancillary is not None:
            context = self.ancillary_embed(ancillary).relu()
            state = self.concat(torch.cat([state, context], dim=1)).relu()
        scores: Tensor = self.out(state)
        return scores.softmax(dim=1)

    def _check_ancillary(self, state: Tensor, ancillary: Tensor | None) -> None:
        found = (len(state), 0) if ancillary is None else tuple(ancillary.shape)
        if found != (len(state), self.ancillary):
            raise OptionError(
                f"ancillary has shape {found}, expected {(len(state), self.ancillary)}: as many variables as "
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

    output_layers: ClassVar = ("rits_f.out", "rits_b.out")
    """What belongs to the classes, and is replaced where they change."""

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
        both = (self.rits_f, self.rits_b)
        # Each direction gets arrays of its own: a reversed alias would reverse the other as well.
        found = _recur(both, torch.stack([x, x.flip(1)]), torch.stack([observed, observed.flip(1)]))
        forward, backward = (
            part.estimate(state, ancillary) for part, state in zip(both, found.state, strict=True)
        )
        imputed = found.completed[0], found.completed[1].flip(1)
        return {
            "fractions": (forward + backward) / 2,
            "imputed": (imputed[0] + imputed[1]) / 2,
            "fractions_forward": forward,
            "fractions_backward": backward,
            "imputation_error": found.error.mean(),
            "disagreement": (imputed[0] - imputed[1]).abs().mean(),
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

    def negative(self) -> Tensor:
        """Return weights and bias side by side, negated as a decay needs them: ``exp(-relu(W gap + b))``."""
        return -_with_bias(self.effective_weight(), self.b)


class _Found(NamedTuple):
    """What the recurrence gives, directions first."""

    state: Tensor
    """Last state ``(d, n, hidden)``."""

    completed: Tensor
    """Completed series ``(d, n, t, c)``."""

    error: Tensor
    """Error of the three predictions at observed values, summed over steps ``(d,)``."""


def _recur(directions: Sequence[RITS], x: Tensor, observed: Tensor) -> _Found:
    """Run over the steps, all directions at once; `x` and `observed` are ``(d, n, t, c)``.

    Samples come last in memory: gates are then whole blocks of it, and a step of both directions is three
    batched products. All that does not need the state (decays, mixing weights) is computed before.
    """
    values = torch.where(observed, x, 0.0)
    fade_h, alpha = _before(directions, observed)
    seen = _with_ones(_by_step(observed.to(x.dtype)))
    given = _by_step(values)
    weights = _stacked_weights(directions)
    bands = x.shape[-1]
    hidden = directions[0].rnn_cell.hidden_size
    h, c = x.new_zeros(2, len(directions), hidden, x.shape[1])
    ones = x.new_ones(len(directions), 1, x.shape[1])
    collected: list[tuple[Tensor, ...]] = []
    for step, (xt, mt, fade, mix) in enumerate(zip(given, seen, fade_h, alpha, strict=True)):
        if step == 0:  # the state is zero
            stacked = weights.state[:, :, hidden:] @ mt
        else:
            stacked = weights.state @ torch.cat([_faded(h, fade), mt], dim=1)
        xh, m = stacked[:, :bands], mt[:, :bands]
        zh = weights.features @ torch.cat([torch.lerp(xh, xt, m), ones], dim=1)
        ch = torch.lerp(xh, zh, mix)
        cc = torch.lerp(ch, xt, m)
        h, c = _lstm_step(_added(stacked[:, bands:], weights.values, cc), c)
        collected.append((xh, zh, ch, cc))
    *guesses, completed = (torch.stack(steps) for steps in zip(*collected, strict=True))
    m = seen[:, :, :bands]
    weight = m.sum(dim=(2, 3)) + _EMPTY
    error = sum(((given - guess) * m).abs().sum(dim=(2, 3)) / weight for guess in guesses)
    return _Found(h.transpose(1, 2), completed.permute(1, 3, 0, 2), torch.as_tensor(error).sum(dim=0))


def _by_step(series: Tensor) -> Tensor:
    """Lay ``(d, n, t, c)`` out as ``(t, d, c, n)``."""
    return series.permute(2, 0, 3, 1).contiguous()


def _with_ones(rows: Tensor) -> Tensor:
    """Append a row of ones, which a bias is multiplied with."""
    return nn.functional.pad(rows, (0, 0, 0, 1), value=1.0)


def _before(directions: Sequence[RITS], observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decay of the state ``(t, d, hidden, n)`` and the mixing weight ``(t, d, c, n)``."""
    gaps = _with_ones(_by_step(torch.stack([time_gaps(mask) for mask in observed])))
    fade_h, fade_x = (
        (torch.stack([layer.negative() for layer in layers]) @ gaps).clamp_(max=0).exp_()
        for layers in ([part.temp_decay_h for part in directions], [part.temp_decay_x for part in directions])
    )
    mixed = torch.stack([_with_bias(p.weight_combine.weight, p.weight_combine.bias) for p in directions])
    return fade_h, mixed @ _with_ones(torch.cat([fade_x, _by_step(observed.to(fade_x.dtype))], dim=2))


class _Weights(NamedTuple):
    """Weights of all directions ``(d, out, in)``, biases in the last column."""

    state: Tensor
    """From state, mask and one to prediction and gates: one product gives both."""

    values: Tensor
    """From completed values to gates."""

    features: Tensor
    """From completed values and one to the prediction from the other bands."""


def _stacked_weights(directions: Sequence[RITS]) -> _Weights:
    """Arrange weights by what they are multiplied with; the candidate's are doubled: see `_lstm_step`."""
    parts = []
    for part in directions:
        cell, bands = part.rnn_cell, part.bands
        double = cell.weight_hh.new_ones(4, cell.hidden_size, 1)
        double[2] = 2.0
        double = double.flatten(0, 1)
        gates = torch.cat([cell.weight_hh, cell.weight_ih[:, bands:]], dim=1) * double
        guess = nn.functional.pad(part.hist_reg.weight, (0, bands))  # the mask has no say in the prediction
        bias = torch.cat([part.hist_reg.bias, (cell.bias_ih + cell.bias_hh) * double[:, 0]])
        state = _with_bias(torch.cat([guess, gates]), bias)
        features = _with_bias(part.feat_reg.effective_weight(), part.feat_reg.b)
        parts.append((state, cell.weight_ih[:, :bands] * double, features))
    return _Weights(*(torch.stack(matrices) for matrices in zip(*parts, strict=True)))


def _with_bias(weight: Tensor, bias: Tensor) -> Tensor:
    return torch.cat([weight, bias[:, None]], dim=1)


def _faded(h: Tensor, fade: Tensor) -> Tensor:
    """Let the state fade; in place where no gradient needs it as it was."""
    return h * fade if torch.is_grad_enabled() else h.mul_(fade)


def _added(gates: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Add a product to the gates; in place where no gradient needs them as they were."""
    product = torch.baddbmm if torch.is_grad_enabled() else Tensor.baddbmm_
    return product(gates, weights, values)


def _lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Turn gates (input, forget, candidate, output, as in torch) and memory into state and memory.

    As ``tanh(g) = 2 sigmoid(2 g) - 1`` and the candidate comes doubled, one sigmoid serves all gates; torch's
    sigmoid takes a sixth of the time of its tanh.
    """
    if torch.is_grad_enabled():
        i, f, g, o = gates.sigmoid().chunk(4, dim=1)
        c = torch.addcmul(f * c, i, 2 * g - 1)
        return o * (2 * (2 * c).sigmoid() - 1), c
    # Without gradients nothing has to be kept, and fresh memory costs as much as the arithmetic.
    i, f, g, o = gates.sigmoid_().chunk(4, dim=1)
    c.mul_(f).addcmul_(i, g, value=2).sub_(i)
    return (2 * c).sigmoid_().mul_(2).sub_(1).mul_(o), c


def _value_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x.isfinite()
    if mask.shape not in (x.shape, x.shape[:2]):
        raise OptionError(
            f"mask has shape {tuple(mask.shape)}, the series {tuple(x.shape)}. Pass (n, t, c) or (n, t)."
        )
    return (mask if mask.ndim == x.ndim else mask.unsqueeze(-1)).bool().expand_as(x)
