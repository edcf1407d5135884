"""What data may ask for (addresses, YAML files), and what may be shown (text without secrets).

Limits are the constants at the top; a downloaded catalog cannot change them. Hosts inside a private network
are allowed in code (``allow_hosts=``) or by the user's environment (``CUBEKIT_ALLOW_HOSTS=host,host``).
"""

import ipaddress
import logging
import os
import re
import socket
from collections.abc import Collection, Hashable, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import yaml

from cubekit.errors import CatalogError, SecurityError
from cubekit.typing import StrPath

WEB_SCHEMES: Final = frozenset({"http", "https"})
"""Schemes whose host is a machine."""

BUCKET_SCHEMES: Final = frozenset({"s3", "gs", "az", "abfs", "abfss"})
"""Schemes whose host is a bucket or container."""

ALLOW_HOSTS_VARIABLE: Final = "CUBEKIT_ALLOW_HOSTS"
"""Environment variable with a comma-separated list of private hosts that items may name."""

MAX_YAML_BYTES: Final = 1_000_000
MAX_YAML_NODES: Final = 100_000
MAX_YAML_DEPTH: Final = 32

_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_DRIVER_PREFIX: Final = re.compile(r"^[A-Za-z][\w+.-]+:(?!//)")
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*://)(?:[^\s/?#@'\"<>]*@)?(?P<rest>[^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?"
)
_SECRET: Final = re.compile(
    r"(?i)\b((?:sig|signature|token|access_token|api[-_]?key|password|secret|x-amz-[\w-]+|awsaccesskeyid|"
    r"ocp-apim-subscription-key)['\"]?\s*[=:]\s*['\"]?)[^\s&'\",}]+"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")


def redact(text: object) -> str:
    """Take secrets out of a text before it is logged, raised or stored.

    Parameters
    ----------
    text : object
        A message, an exception, or an address.

    Returns
    -------
    str
        The same text; addresses lose query, fragment and ``user:password@``, and values of well-known
        secret keys and authorisation headers become ``***``.
    """
    plain = _URL.sub(lambda match: match["scheme"] + match["rest"], str(text))
    return _BEARER.sub(r"\1 ***", _SECRET.sub(r"\1***", plain))


def redact_log(record: logging.LogRecord) -> bool:
    """Take secrets out of a log record; a filter for loggers of libraries that print addresses whole.

    Parameters
    ----------
    record : logging.LogRecord
        Changed in place.

    Returns
    -------
    bool
        Always True: no record is dropped.
    """
    record.msg, record.args = redact(record.getMessage()), ()
    return True


def check_href(
    href: StrPath,
    *,
    origin: str | None = None,
    root: "StrPath | None" = None,
    allow_hosts: Iterable[str] = (),
) -> str:
    """Return an asset's address if data may name it.

    Remote addresses must use http(s), s3, gs, az or abfs; machines must not be loopback, private,
    link-local or metadata addresses, unless it is the machine the item came from. Names are not resolved
    here. Local paths must lie under the archive's folder after links are resolved. Anything that GDAL would
    take for another driver, a virtual file or a document (``vrt://``, ``/vsi…``, ``NETCDF:…``, XML) is
    refused.

    Parameters
    ----------
    href : str or path
        Unsigned address as an item states it.
    origin : str, optional
        Address of the API or file the item was read from, when that was remote; items may name its host, and
        relative addresses are joined to it.
    root : path, optional
        Folder of a local archive; without it no local path is allowed. Relative paths start there.
    allow_hosts : iterable of str, optional
        Private hosts to allow, besides those in ``CUBEKIT_ALLOW_HOSTS``.

    Returns
    -------
    str
        The address, or the resolved absolute path of a local file.

    Raises
    ------
    SecurityError
        Naming the address (without query) and the rule that it breaks.
    """
    text = os.fspath(href)
    if not text.strip() or not text.isprintable() or text.lstrip().startswith(("<", "{", "[")):
        raise _refusal(text, "it is not an address but empty, a document, or has control characters")
    if _DRIVER_PREFIX.match(text) or text.lower().startswith(("/vsi", "\\\\")):
        raise _refusal(text, "driver prefixes and virtual file systems are not accepted from data")
    if origin is not None and "://" not in text:
        text = urljoin(origin, text)
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError as error:
        raise _refusal(text, f"it cannot be parsed ({error})") from None
    if parts.scheme.lower() in WEB_SCHEMES:
        allowed = {*map(str.lower, allow_hosts), *_hosts_from_environment()}
        _check_machine(text, parts, allowed | ({_host(origin)} if origin else set()))
    elif parts.scheme.lower() in BUCKET_SCHEMES:
        if not host:
            raise _refusal(text, "it names no bucket")
    elif "://" in text and parts.scheme.lower() != "file":
        known = ", ".join(sorted(WEB_SCHEMES | BUCKET_SCHEMES))
        raise _refusal(text, f"scheme {parts.scheme!r} is not one of {known}")
    else:
        return _local_path(text, parts, origin=origin, root=root)
    return text


def load_yaml(path: StrPath) -> Any:
    """Read a YAML file that somebody else may have written.

    Only plain values are built; tags that name Python objects, repeated keys, self-references, files over 1
    MB, and documents that alias expansion would blow up are refused.

    Parameters
    ----------
    path : path
        Local file.

    Returns
    -------
    object
        Mappings, lists, strings, numbers, booleans, dates and None.

    Raises
    ------
    CatalogError
        Naming file, line and reason.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > MAX_YAML_BYTES:
            raise CatalogError(f"{file}: {size} bytes, expected at most {MAX_YAML_BYTES} in a YAML file.")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise CatalogError(f"{file} is not text in UTF-8, so it is no YAML file ({error}).") from error
    try:
        _check_yaml_shape(text)
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader subclass)
    except yaml.YAMLError as error:
        raise CatalogError(f"{file}: not acceptable YAML. {error}") from error


def _refusal(href: str, why: str) -> SecurityError:
    return SecurityError(f"Address {redact(href)[:200]!r} refused: {why}.")


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _hosts_from_environment() -> set[str]:
    return {
        host.strip().lower() for host in os.environ.get(ALLOW_HOSTS_VARIABLE, "").split(",") if host.strip()
    }


def _check_machine(href: str, parts: SplitResult, allowed: Collection[str]) -> None:
    host = (parts.hostname or "").lower()
    if not host or "\\" in parts.netloc:
        raise _refusal(href, "it names no host")
    if "@" in parts.netloc:
        raise _refusal(href, "it carries a user name or password")
    if host not in allowed and is_private_host(host):
        advice = f"allow it with {ALLOW_HOSTS_VARIABLE}={host}"
        raise _refusal(href, f"host {host!r} lies in this machine or its private network; {advice}")


def is_private_host(host: str) -> bool:
    """Tell whether a host name or number means this machine or its network.

    Parameters
    ----------
    host : str
        Name, IPv4 in any notation that C libraries accept, or IPv6. Names are not resolved.

    Returns
    -------
    bool
        True for loopback, private, link-local, metadata, multicast and reserved addresses, for names
        without a dot, and for names that only exist in local networks.
    """
    name = host.lower().rstrip(".").split("%")[0]
    address = _address(name)
    if address is None:
        return "." not in name or name.endswith(_PRIVATE_NAMES)
    return not address.is_global or address.is_multicast


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read a number as an address; IPv4 inside IPv6 counts as the IPv4 it reaches."""
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        try:  # 127.1, 0x7f.1 and 2130706433 are 127.0.0.1 to C libraries
            return ipaddress.IPv4Address(socket.inet_aton(name))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address):
        teredo = address.teredo
        inner = address.ipv4_mapped or address.sixtofour or (teredo and teredo[1])
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


def _local_path(href: str, parts: SplitResult, *, origin: str | None, root: "StrPath | None") -> str:
    if origin is not None or root is None:
        raise _refusal(href, "only items of a local archive may name local files (give its folder as root=)")
    if parts.scheme.lower() == "file" and parts.netloc not in {"", "localhost"}:
        raise _refusal(href, "it names a file on another machine")
    path = unquote(parts.path) if parts.scheme.lower() == "file" else href
    base = Path(root).resolve()
    resolved = (base / path).resolve()
    if not resolved.is_relative_to(base):
        raise _refusal(href, f"it leads to {resolved}, outside the archive folder {base}; give a wider root=")
    return str(resolved)


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses repeated keys instead of keeping the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: Any = False) -> dict[Any, Any]:  # noqa: FBT002
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # others are refused by the base class
                if key in seen:
                    raise _yaml_refusal(f"key {key!r} repeats", key_node)
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _check_yaml_shape(text: str) -> None:
    """Count values as if every alias were written out, before anything is built."""
    open_nodes: list[tuple[str | None, int]] = []  # anchor and size of each open collection
    sizes: dict[str, int] = {}  # of finished nodes that have an anchor
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > MAX_YAML_DEPTH:
                raise _yaml_refusal(f"nested deeper than {MAX_YAML_DEPTH}", event)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.NodeEvent):  # a scalar or an alias
            alias = str(event.anchor) if isinstance(event, yaml.AliasEvent) else None
            if alias is not None and alias not in sizes:
                raise _yaml_refusal(f"alias *{alias} is unknown or contains itself", event)
            anchor, size = (event.anchor, 1) if alias is None else (None, sizes[alias])
        else:
            continue
        if anchor:
            sizes[anchor] = size
        if open_nodes:
            open_nodes[-1] = (open_nodes[-1][0], open_nodes[-1][1] + size)
        if size > MAX_YAML_NODES:
            raise _yaml_refusal(f"more than {MAX_YAML_NODES} values once aliases are written out", event)


def _yaml_refusal(why: str, place: Any) -> yaml.YAMLError:
    """Return an error with line and column of an event or node."""
    return yaml.MarkedYAMLError(problem=why, problem_mark=place.start_mark)
