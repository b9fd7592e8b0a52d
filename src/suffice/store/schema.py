"""The tables, declared once. Documents (certificates, reports, prompts) are JSON text; bodies are bytes as they were.

`records`, `audits` and `trusted` only grow: a record is immutable, and what is learned later about it (the frontier's
answer to an audit, a trusted answer) is a row of its own. `watches` and `steps` belong to the keeper alone. `VERSION`
rises with every change here and each has its file in `migrations/`; a home made by a newer version is refused, never
guessed at.

Which task an undeclared record belongs to is no part of the record: `members` says by which pattern it was known, and
`patterns` whose that is, so that a task can be renamed, merged and split without touching what was recorded.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

VERSION = 4

metadata = MetaData()

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", String, nullable=False))

records = Table(
    "records",
    metadata,
    Column(
        "seq", Integer, primary_key=True
    ),  # in the order of commits: whoever follows the table keeps its place by it
    Column("id", String, nullable=False, unique=True),
    Column("at", Float, nullable=False),  # seconds since 1970, when the request had arrived
    Column("source", String, nullable=False),  # live | import
    Column("dialect", String, nullable=False),  # as the caller spoke: chat | messages | responses | ... | short
    Column("task", String),
    Column("rule", String),  # how the task was told: header | config | fingerprint:N | template:N | meaning:N (pattern)
    Column("model", String, nullable=False),  # as asked
    Column("upstream", String),
    Column("route", String, nullable=False),  # specialist | cache | an upstream's name | none
    Column("reason", String, nullable=False),
    Column("stage", String),
    Column("release", String),
    Column("score", Float),
    Column("threshold", Float),
    Column("predicted", Text),  # JSON: what the specialist said, given or not
    Column("acceptable", Boolean),  # all of the accepting rule but the threshold
    Column("watch", Integer),  # the task's watch of which this is a step; NULL: outside of any
    Column("coin", Float),  # probability with which the frontier's answer is asked for too, as it was at request time
    Column("audited", Boolean),  # how the coin fell
    Column("stakes", String),  # the watch's stakes at request time, comma separated
    Column("status", Integer),  # HTTP status the caller got; NULL: it hung up before there was one
    Column("failure", String),  # one sentence, NULL where the exchange is whole
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("tokens_estimated", Boolean, nullable=False, default=False),
    Column("cost_usd", Float),
    Column("latency_ms", Float),
    Column("first_chunk_ms", Float),
    Column("streamed", Boolean, nullable=False, default=False),
    Column("session", String),
    Column("group", String),
    Column("slices", String, nullable=False, default=""),  # comma separated
    Column("input", Text),  # what the specialist read, where one was asked; the whole input of the short form
    Column("request", LargeBinary),
    Column("answer", LargeBinary),  # the body as relayed; a stream as the completion it spells
    Column("response_id", String),
    Column("key", String),  # name of the virtual key that asked; NULL: without one
    Column("cached_tokens", Integer),  # of the prompt's, read from the provider's cache
    Column("written_tokens", Integer),  # of the prompt's, put into the provider's cache
    Column("attempts", Text),  # JSON: tries at upstreams before (or without) the one that answered
    Column("egress", String),  # denied | redacted; NULL: nothing was held back
    Column("path", String),  # of what is passed through: method and path, without its query
    Column("gone", String),  # expired | erased: what was said was dropped; NULL: it is all there
    Column("cuts", Text),  # where which parts of `request` were: store.parts; NULL: it is whole
    Column("sealed", String),  # the key under which what was said is sealed; NULL: it is readable
    Column("schema", Integer, nullable=False),
    Index("records_task_at", "task", "at"),
    Index("records_at", "at"),
    Index("records_kept", "at", sqlite_where=text("gone IS NULL"), postgresql_where=text("gone IS NULL")),
    Index("records_response_id", "response_id"),
    Index("records_key_at", "key", "at", sqlite_where=text("key IS NOT NULL")),
    Index("records_watch", "seq", sqlite_where=text("watch IS NOT NULL"), postgresql_where=text("watch IS NOT NULL")),
)

trusted = Table(
    "trusted",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("record", String, nullable=False, index=True),
    Column("kind", String, nullable=False),  # human | rule
    Column("value", Text, nullable=False),  # JSON
    Column("at", Float, nullable=False),
    Column("sealed", String),
)

parts = Table(  # of requests: what repeats
    "parts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("body", LargeBinary, nullable=False),
    Column("sealed", String),
    sqlite_autoincrement=True,  # a number is never given twice: whoever has read a part may keep it
)

belongings = Table(  # to which task people say that a record belongs: the latest counts, and nothing trains on it
    "belongings",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("record", String, nullable=False, index=True),
    Column("task", String),  # NULL: to none
    Column("at", Float, nullable=False),
)

audits = Table(
    "audits",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("record", String, nullable=False, unique=True),
    Column("at", Float, nullable=False),
    Column("upstream", String),
    Column("status", Integer),
    Column("answer", LargeBinary),
    Column("failure", String),  # one sentence, NULL where there is an answer
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost_usd", Float),
    Column("latency_ms", Float),
    Column("sealed", String),
)

withdrawn = Table(  # ids of responses of ours that were deleted by their callers
    "withdrawn",
    metadata,
    Column("response", String, primary_key=True),
    Column("at", Float, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", String, primary_key=True),
    Column("stage", String, nullable=False),
    Column("release", Integer),  # the release that the stage speaks of
    Column("created_at", Float, nullable=False),
)

releases = Table(
    "releases",
    metadata,
    Column("task", String, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("release", Text, nullable=False),  # core.types.Release
    Column("serving", Text, nullable=False),  # what serving needs beside it: prompt (NULL until pinned), style
    Column("pinned", Text),  # the prompt of the first live request, where the release was learned without one
    Column("created_at", Float, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("task", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("key", String, nullable=False),  # digest of data and settings: the same run is not run twice
    Column("exit", Integer, nullable=False),
    Column("document", Text, nullable=False),  # what `suffice learn --json` printed
)

ledger = Table(
    "ledger",
    metadata,
    Column("task", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("delta", Float, nullable=False),
    Column("calibration", String, nullable=False),  # digest of all that the look rested on but its labels
)

tails = Table(
    "tails",
    metadata,
    Column("task", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),  # a ledger of its own
    Column("release", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("delta", Float, nullable=False),
    Column("labels", Integer, nullable=False),
    Column("errors", Float, nullable=False),  # the sum of their losses
    Column("promised", Boolean, nullable=False),
)

watches = Table(
    "watches",
    metadata,
    Column("task", String, primary_key=True),
    Column("n", Integer, primary_key=True),  # the task's n-th watch
    Column("release", Integer, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("outcome", String),  # alarm | ended; NULL while it is open
    Column("state", Text, nullable=False),  # serve.watch.State
)

steps = Table(  # of an open watch: those whose label was asked for
    "steps",
    metadata,
    Column("record", String, primary_key=True),
    Column("task", String, nullable=False),
    Column("watch", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("coin", Float, nullable=False),
    Column("stakes", String, nullable=False),
    Column("differs", Float),  # how far the frontier's answer is from the specialist's; NULL until it is there
    Column("loss", Float),  # NULL until the label is there
    Column("missing", Boolean, nullable=False, default=False),  # the deadline has passed
    Index("steps_watch", "task", "watch", "loss"),
)

splits = Table(
    "splits",
    metadata,
    Column("task", String, primary_key=True),
    Column("example", String, primary_key=True),  # record id
    Column("split", String, nullable=False),  # train | tune | calibration | test
)

patterns = Table(
    "patterns",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False, unique=True),  # digest of what follows: the same rule is found once
    Column("rule", Text),  # core.match.Rule; NULL: requests that came with the name of their task, `label`
    Column("parent", Integer),  # of a group found by meaning: the pattern whose requests it divides,
    Column("label", String),  # and what that pattern's matcher calls it
    Column("matcher", String),  # artefact that tells the groups of this pattern apart; NULL: it is one work
    Column("least", Float),  # the score from which the matcher is believed
    Column("task", String),  # NULL: of no task (yet)
    Column("decided", Boolean, nullable=False, default=False),  # by a person: discovery leaves it alone
    Column("ignored", Boolean, nullable=False, default=False),
    Column("at", Float, nullable=False),
    Column("records", Integer, nullable=False, default=0),  # sums over its members, kept as they are placed
    Column("whole", Integer, nullable=False, default=0),  # with a whole answer of an upstream
    Column("prompt_tokens", Integer, nullable=False, default=0),
    Column("completion_tokens", Integer, nullable=False, default=0),
    Column("cost_usd", Float, nullable=False, default=0.0),
    Column("unpriced", Integer, nullable=False, default=0),
    Column("first_at", Float),
    Column("last_at", Float),
    Index("patterns_task", "task"),
)

members = Table(  # of a pattern: the records it knows
    "members",
    metadata,
    Column("seq", Integer, primary_key=True),  # the record's
    Column("pattern", Integer, nullable=False),
    Column("coin", Integer, nullable=False),  # a hash of the record's id: the lowest are a sample that stays
    Index("members_pattern", "pattern", "coin"),
)

aliases = Table(  # names that a task had: who still uses them means the task of today
    "aliases",
    metadata,
    Column("name", String, primary_key=True),
    Column("task", String, nullable=False),
)

found = Table(  # what discovery last found out about a task
    "found",
    metadata,
    Column("task", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("document", Text, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("digest", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("manifest", LargeBinary, nullable=False),  # learn.datasets.Manifest, compressed
    Index("datasets_task", "task", "at"),
)

imports = Table(  # how far a file was imported
    "imports",
    metadata,
    Column("digest", String, primary_key=True),
    Column("task", String, primary_key=True),  # of rows that name none; "" without
    Column("path", String, nullable=False),
    Column("line", Integer, nullable=False),
    Column("offset", Integer, nullable=False),
    Column("done_at", Float),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("task", String),
    Column("kind", String),  # alarm | recovery | stage | ...: what a program may tell them apart by
    Column("what", String, nullable=False),
)

keys = Table(  # virtual keys; a row stays when its key is revoked, for records go by its name
    "keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the key, which is kept nowhere
    Column("last4", String, nullable=False),  # of the key, for people
    Column("former", LargeBinary),  # the digest before the last rotation,
    Column("former_until", Float),  # and until when it still works
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("version", Integer, nullable=False, default=1),  # rises when limits change
    Column("admin", Boolean, nullable=False, default=False),
    Column("egress", String),
    Column("models", Text),  # JSON: patterns; NULL: all
    Column("tasks", Text),  # JSON; NULL: all
    Column("budget_usd", Text),  # JSON: core.budgets.Budget
    Column("budget_tokens", Text),
    Column("requests_per_minute", Float),
    Column("tokens_per_minute", Float),
)

files = Table(  # uploaded for batches, and written by them; contents lie in HOME/files
    "files",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("key", String),  # name of the virtual key that made it
    Column("at", Float, nullable=False),
    Column("status", String, nullable=False),
    Column("document", Text, nullable=False),  # as the vendor's SDKs read it
)

batches = Table(
    "batches",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("key", String),
    Column("at", Float, nullable=False),
    Column("status", String, nullable=False),
    Column("document", Text, nullable=False),
)

# One row. Workers look at it to see that a stage, a release or a pin has changed.
routing = Table(
    "routing", metadata, Column("id", Integer, primary_key=True), Column("version", Integer, nullable=False)
)
