"""TempCNN: three temporal convolutions and a dense layer per pixel series."""

from torch import Tensor, nn

from cubekit.nn.registry import register


@register(
    "tempcnn",
    task="classify",
    form="series",
    paper="Pelletier, Webb & Petitjean 2019, Remote Sensing 11(5) 523, https://doi.org/10.3390/rs11050523",
)
class TempCNN(nn.Module):
    """Temporal convolutional network for the classes of pixel series.

    Three convolutions over time (same zero padding, no pooling), each with batch norm, ReLU and dropout; then
    one dense layer and the class scores. Weights start He-normal, biases at zero. After Pelletier, Webb and
    Petitjean 2019 (https://doi.org/10.3390/rs11050523).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    steps : int
        Number of dates, ``t``; fixed, as the dense layer sees all of them.
    classes : int
        Number of classes.
    dropout : float, optional
        Share of values dropped after each hidden layer while training.
    width : int, optional
        Filters of each convolution.
    kernel : int, optional
        Dates that a filter covers; odd.
    dense : int, optional
        Size of the dense layer.
    """

    def __init__(
        self,
        *,
        bands: int,
        steps: int,
        classes: int,
        dropout: float = 0.5,
        width: int = 64,
        kernel: int = 5,
        dense: int = 256,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (bands, width, width):
            layers += [
                nn.Conv1d(channels, width, kernel, padding="same"),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * steps, dense),
            nn.BatchNorm1d(dense),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(dense, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Score the classes.

        Parameters
        ----------
        x : torch.Tensor
            Series ``(n, t, c)``, float, normalised, gaps filled.
        mask : torch.Tensor, optional
            Not used: gaps are filled before.
        doy : torch.Tensor, optional
            Not used: dates enter by their order.

        Returns
        -------
        torch.Tensor
            Logits ``(n, classes)``.
        """
        del mask, doy
        scores: Tensor = self.head(self.dense(self.convolutions(x.transpose(1, 2))))
        return scores
