"""The developer docs that a running server shows under `/docs/`, held against what it has just answered."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import unescape
from typing import Any

from opsmeter_site.embedded.budget_table import VerifyError, messages

# Where each example is: the page, and the code block in it.
ACCEPTED = ("/docs/answers/", "accepted-json")
STATUS = ("/docs/status/", "status-json")
CLIENT = (("/docs/messages/", "client-javascript"), ("/docs/messages/", "messages-javascript"))


def problems(
    page_of: Callable[[str], str], answers: Iterable[Mapping[str, Any]], status: Mapping[str, Any]
) -> Iterator[str]:
    """Where the docs are not as the server is: `answers` are 200s of ingest, `status` is the workspace status.

    `page_of` gets a page's HTML by its path. Raises `VerifyError` for an example that is not there.
    """
    documented = json.loads(example(page_of, *ACCEPTED))
    code = [(block, example(page_of, path, block)) for path, block in CLIENT]
    for answer in answers:
        yield from (f"{ACCEPTED[0]}: {text}" for text in _key_differences(documented, answer))
        for text in messages(answer):
            yield from (f'{block} does not show "{text}"' for block, source in code if f"'{text}'" not in source)
    yield from (f"{STATUS[0]}: {text}" for text in _key_differences(json.loads(example(page_of, *STATUS)), status))


def example(page_of: Callable[[str], str], path: str, block: str) -> str:
    """The code block of that page; `VerifyError` if it has none."""
    found = re.search(rf'<code id="code-{block}">(.*?)</code>', page_of(path), re.DOTALL)
    if found is None:
        raise VerifyError(f"{path} has no example {block}")
    return unescape(found.group(1))


def _key_differences(documented: Mapping[str, Any], answered: Mapping[str, Any], where: str = "") -> Iterator[str]:
    for name in dict.fromkeys((*documented, *answered)):
        if name not in answered:
            yield f"{where}{name} is documented, and not in the answer"
        elif name not in documented:
            yield f"{where}{name} is in the answer, and not documented"
        elif isinstance(documented[name], dict):
            yield from _key_differences(documented[name], answered[name], f"{where}{name}.")
