"""Moving a whole store to another database: copy, follow, cut over, verify.

`copy` brings all five tables over, and can be repeated, killed and resumed at will: the target says how far
it has come. `cut_over` copies what is left while writers wait for seconds, proves that both are equal, and
fences the source off. `verify_copy` compares two stores row by row. `export_store` and `import_store` go by
way of a file. `fill_tags` gives stored events the tags that their classes declare by now.
"""

from esource.copying.export import SOURCE, ExchangeResult, export_store, import_store
from esource.copying.mirror import Change
from esource.copying.progress import Progress
from esource.copying.restarts import Reset
from esource.copying.stores import CopyResult, copy, cut_over, reopen, verify_copy
from esource.copying.tagging import TagsFilled, fill_tags
from esource.copying.verification import RangeDigest, TableComparison, Verification

__all__ = [
    "SOURCE",
    "Change",
    "CopyResult",
    "ExchangeResult",
    "Progress",
    "RangeDigest",
    "Reset",
    "TableComparison",
    "TagsFilled",
    "Verification",
    "copy",
    "cut_over",
    "export_store",
    "fill_tags",
    "import_store",
    "reopen",
    "verify_copy",
]
