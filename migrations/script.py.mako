"""${message}"""

import sqlalchemy as sa

from esource.schema.operations import op, record_revision, require_named_branch

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
    record_revision(op, revision)


def downgrade() -> None:
    require_named_branch(op)
    ${downgrades if downgrades else "pass"}
    record_revision(op, down_revision)
