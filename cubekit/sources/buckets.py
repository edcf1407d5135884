"""Credentials of object stores: S3, Google Cloud Storage, Azure; and of archives that sit on them.

Nothing is read from items or catalogs: keys come from the environment of the process that reads, or from
where GDAL itself looks (profiles, service accounts, instance roles).
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote, urlsplit

from cubekit.errors import SourceError
from cubekit.security import BUCKET_SCHEMES, redact
from cubekit.sources.access import Access, Secret

CDSE_ENDPOINT_VARIABLE: Final = "CDSE_S3_ENDPOINT"
"""Environment variable with another endpoint than the public one of the Copernicus Data Space Ecosystem."""

_AWS_SIGNS: Final = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_NO_SIGN_REQUEST",
)  # fmt: skip
_GOOGLE_SIGNS: Final = (
    "GOOGLE_APPLICATION_CREDENTIALS", "GS_SECRET_ACCESS_KEY", "GS_OAUTH2_REFRESH_TOKEN",
    "GS_OAUTH2_PRIVATE_KEY", "GS_OAUTH2_PRIVATE_KEY_FILE", "GS_NO_SIGN_REQUEST",
)  # fmt: skip
_AZURE_SIGNS: Final = (
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_ACCESS_TOKEN", "AZURE_TENANT_ID", "AZURE_NO_SIGN_REQUEST",
)  # fmt: skip
_LANDSAT_WEB: Final = "https://landsatlook.usgs.gov/data/"
_LANDSAT_BUCKET: Final = "s3://usgs-landsat/"


def is_bucket(href: str) -> bool:
    """Tell whether an address names an object in a bucket rather than on a machine.

    Parameters
    ----------
    href : str
        Any address or path.

    Returns
    -------
    bool
        True for ``s3://``, ``gs://``, ``az://`` and ``abfs(s)://``.
    """
    return href.split("://", maxsplit=1)[0].lower() in BUCKET_SCHEMES and "://" in href


def bucket_access(href: str) -> Access:
    """Return how to open an object with the credentials of this process, or without any where it has none.

    Parameters
    ----------
    href : str
        Such as ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key`` (the account comes from
        ``AZURE_STORAGE_ACCOUNT``) or ``abfs://container@account.dfs.core.windows.net/key``.

    Returns
    -------
    Access
        Reading unsigned where neither an environment variable nor a file of credentials is there; a role of
        the machine is used once ``AWS_NO_SIGN_REQUEST=NO`` is set.
    """
    parts = urlsplit(href)
    scheme, host, path = parts.scheme.lower(), parts.netloc, unquote(parts.path)
    if scheme == "s3":
        signed = any(os.environ.get(name) for name in _AWS_SIGNS) or _has_file(
            "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"
        )
        settings = {} if signed else {"AWS_NO_SIGN_REQUEST": "YES"}
        if shared := os.environ.get("AWS_SHARED_CREDENTIALS_FILE"):
            settings["CPL_AWS_CREDENTIALS_FILE"] = shared  # GDAL's own name for it
        return Access(f"/vsis3/{host}{path}", settings)
    if scheme == "gs":
        signed = any(os.environ.get(name) for name in _GOOGLE_SIGNS)
        return Access(f"/vsigs/{host}{path}", {} if signed else {"GS_NO_SIGN_REQUEST": "YES"})
    container, _, account = host.partition("@")
    settings = {"AZURE_STORAGE_ACCOUNT": account.split(".")[0]} if account else {}
    if not any(os.environ.get(name) for name in _AZURE_SIGNS):
        settings["AZURE_NO_SIGN_REQUEST"] = "YES"
    return Access(f"/vsiaz/{container}{path}", settings)


def _has_file(variable: str, default: str) -> bool:
    return Path(os.environ.get(variable, default)).expanduser().is_file()


def _read(names: tuple[str, ...], why: str, href: str) -> list[str]:
    """Return the values of environment variables that must be set."""
    if missing := [name for name in names if not os.environ.get(name)]:
        raise SourceError(f"{redact(href)} cannot be read: set {' and '.join(missing)} ({why}).")
    return [os.environ[name] for name in names]


def cdse(href: str, *, fresh: bool = False) -> Access | str:  # noqa: ARG001  (part of the protocol)
    """Open files of the Copernicus Data Space Ecosystem with the S3 keys of a user.

    Parameters
    ----------
    href : str
        ``s3://eodata/…``; other addresses are left alone.
    fresh : bool, optional
        Keys are read from ``CDSE_S3_ACCESS_KEY`` and ``CDSE_S3_SECRET_KEY`` each time anyway.

    Returns
    -------
    Access or str
        For the endpoint of the Copernicus Data Space Ecosystem.

    Raises
    ------
    SourceError
        Naming the variables to set.
    """
    if not href.lower().startswith("s3://eodata/"):
        return href
    key, secret = _read(
        ("CDSE_S3_ACCESS_KEY", "CDSE_S3_SECRET_KEY"),
        "made at https://eodata-s3keysmanager.dataspace.copernicus.eu",
        href,
    )
    endpoint = os.environ.get(CDSE_ENDPOINT_VARIABLE, "https://eodata.dataspace.copernicus.eu")
    settings = {
        "AWS_ACCESS_KEY_ID": Secret(key),
        "AWS_SECRET_ACCESS_KEY": Secret(secret),
        "AWS_SESSION_TOKEN": "",  # one of another account must not go there
        "AWS_NO_SIGN_REQUEST": "NO",
        "AWS_S3_ENDPOINT": endpoint.split("://", maxsplit=1)[-1],
        "AWS_HTTPS": "NO" if endpoint.startswith("http://") else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "default",
    }
    return Access(f"/vsis3/{urlsplit(href).netloc}{unquote(urlsplit(href).path)}", settings)


def usgs_landsat(href: str, *, fresh: bool = False) -> Access | str:  # noqa: ARG001  (part of the protocol)
    """Open Landsat Collection 2 files from the bucket ``usgs-landsat``, whose traffic the reader pays.

    Parameters
    ----------
    href : str
        ``https://landsatlook.usgs.gov/data/…`` (which wants a login) or ``s3://usgs-landsat/…``; other
        addresses are left alone.
    fresh : bool, optional
        Without effect: credentials are those of S3.

    Returns
    -------
    Access or str
        The object in the bucket.

    Raises
    ------
    SourceError
        Unless ``AWS_REQUEST_PAYER=requester`` says that the user agrees to pay.
    """
    if href.startswith(_LANDSAT_WEB):
        href = _LANDSAT_BUCKET + href.removeprefix(_LANDSAT_WEB)
    if not href.startswith(_LANDSAT_BUCKET):
        return href
    _read(("AWS_REQUEST_PAYER",), "to 'requester': the bucket usgs-landsat bills its readers", href)
    access = bucket_access(href)
    region = {} if os.environ.get("AWS_REGION") else {"AWS_REGION": "us-west-2"}
    return Access(access.address, {**access.settings, **region})


def azure_sas(href: str, *, fresh: bool = False) -> str:  # noqa: ARG001  (part of the protocol)
    """Sign Azure addresses of one account with the user's own shared access signature.

    Parameters
    ----------
    href : str
        Unsigned; addresses of other accounts than ``AZURE_STORAGE_ACCOUNT`` are left alone.
    fresh : bool, optional
        ``AZURE_STORAGE_SAS_TOKEN`` is read each time anyway.

    Returns
    -------
    str
        With the signature as query.

    Raises
    ------
    SourceError
        Naming the variables to set.
    """
    account, token = _read(
        ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_SAS_TOKEN"), "of the storage account", href
    )
    parts = urlsplit(href)
    if parts.scheme != "https" or (parts.hostname or "") != f"{account.lower()}.blob.core.windows.net":
        return href
    return f"{href}{'&' if parts.query else '?'}{token.lstrip('?')}"


EARTHDATA_HOSTS: Final = (
    "earthdata.nasa.gov", "earthdatacloud.nasa.gov", "gesdisc.eosdis.nasa.gov", "modaps.eosdis.nasa.gov",
    "e4ftl01.cr.usgs.gov", "n5eil01u.ecs.nsidc.org",
)  # fmt: skip
"""Hosts (and what lies below them) that may see the Earthdata token."""


def earthdata(href: str, *, fresh: bool = False) -> Access | str:  # noqa: ARG001  (part of the protocol)
    """Open files of NASA's archives with an Earthdata Login token as bearer.

    Parameters
    ----------
    href : str
        https address; those of other hosts than `EARTHDATA_HOSTS` are left alone and see no token. A
        redirect to another host does not carry it either.
    fresh : bool, optional
        ``EARTHDATA_TOKEN`` is read each time anyway.

    Returns
    -------
    Access or str
        With the header.

    Raises
    ------
    SourceError
        When ``EARTHDATA_TOKEN`` is not set.
    """
    return bearer(
        href, hosts=EARTHDATA_HOSTS, variable="EARTHDATA_TOKEN", why="made at https://urs.earthdata.nasa.gov"
    )


def bearer(href: str, *, hosts: tuple[str, ...], variable: str, why: str) -> Access | str:
    """Send a token of the environment as bearer, to some hosts only.

    Parameters
    ----------
    href : str
        Address.
    hosts : tuple of str
        Names; what lies below them counts too. A name with a port is meant exactly.
    variable : str
        Environment variable that holds the token.
    why : str
        Where it comes from, for the message.

    Returns
    -------
    Access or str
        The address alone for other hosts, and for plain http outside this machine.

    Raises
    ------
    SourceError
        When the variable is not set.
    """
    parts = urlsplit(href)
    host = (parts.hostname or "").lower()
    known = any(name in {parts.netloc, host} or host.endswith(f".{name}") for name in hosts)
    if not known or (parts.scheme != "https" and host != "127.0.0.1"):
        return href
    (token,) = _read((variable,), why, href)
    return Access(href, {"GDAL_HTTP_HEADERS": Secret(f"Authorization: Bearer {token}")})


CREDENTIALS: Final[Mapping[str, Callable[..., "Access | str"]]] = MappingProxyType(
    {"cdse": cdse, "usgs-landsat": usgs_landsat, "azure-sas": azure_sas, "earthdata": earthdata}
)
"""Signers by the name that a provider's record gives."""
