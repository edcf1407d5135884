"""What a failed read means: whether trying again makes sense, and what the user can do."""

from cubekit.security import redact


def explain(error: Exception, name: str, href: str) -> str:
    """Say what happened, with the unsigned address in place of what GDAL was given."""
    text = str(error) or type(error).__name__
    cause = error.__cause__ or error.__context__
    if cause is not None and str(cause) not in text:
        text = f"{text}; {cause}"
    for shown in (name, name.split("?", maxsplit=1)[0]):
        text = text.replace(shown, href) if shown else text
    return redact(text).strip().rstrip(".") + "."


def refused(failure: str) -> bool:
    """Tell whether a signature may have ended; GDAL hides a refusal half way through opening."""
    return any(sign in failure for sign in ("code: 401", "code: 403", "not recognized as"))


def may_pass(failure: str, attempt: int) -> bool:
    """Tell whether trying again makes sense."""
    if any(
        text in failure
        for text in ("response code: 404", "response code: 410", "does not exist", "was replaced")
    ):
        return False
    # What GDAL says of a login page, and also of a refusal half way through opening: once more, no storm.
    return not (refused(failure) and attempt > 0)


def next_step(failure: str, *, remote: bool) -> str:
    """Say what the user can do."""
    if "not recognized as" in failure:
        return (
            "The answer is not a raster of the stated type (a login page, a refusal, or another format): "
            "check the address, the access rights and the asset's media type."
        )
    if "was replaced" in failure:
        return "Run again: the cube must not mix two states of a file."
    if "response code: 40" in failure or "No such file" in failure or "does not exist" in failure:
        return "Check that the file exists and may be read; search again for fresh items."
    return "Run again later, or open the cube with on_error='record' to go on without it." if remote else ""
