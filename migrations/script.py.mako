"""${message}"""

import sqlalchemy as sa
from alembic import op

from esource.schema import record_revision

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
    record_revision(op, revision)


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
    record_revision(op, down_revision)
