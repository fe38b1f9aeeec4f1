"""How much of its quota an uplink has used. Fields are added, never changed."""

from polywan.api.document import Document


class QuotaStatus(Document):
    """The quota of an uplink.

    Attributes:
        kind: "monthly", with a billing day, or "prepaid".
        state: "within", "soft" (the soft limit is passed) or "hard".
        action: what happens to the uplink now: "none", "standby", "less", "block" or "keep" (only told).
        used_bytes: since `since`; `soft_bytes`: None without that limit; `hard_bytes`: what there is.
        since: begin of the billing period, or of the bucket, ISO 8601; `resets`: its end, None for a bucket.
        forecast_bytes: what will have been used at `resets`, as it goes on; None while too little is known.
        runs_out: when the hard limit is reached as it goes on, ISO 8601; None if not before `resets`, or not known.
        reading_bytes, reading_at: what the provider said at last, and when that was entered; None without.
        text: all of it in one sentence, for people.
    """

    kind: str
    state: str
    action: str
    used_bytes: int
    soft_bytes: int | None
    hard_bytes: int
    since: str
    resets: str | None
    forecast_bytes: int | None
    runs_out: str | None
    reading_bytes: int | None
    reading_at: str | None
    text: str


class SetQuota(Document):
    """What is entered of an uplink's quota, as amounts such as "37.2GB"; one of the two at least.

    Attributes:
        name: the uplink.
        reading: what the provider says was used in this period, or of the bucket.
        bought: what was bought in addition.
    """

    name: str
    reading: str | None = None
    bought: str | None = None


class QuotaChanged(Document):
    """An uplink's quota after an entry.

    Attributes:
        quota: as in the status.
        warnings: what people should know.
        saved: a restart of the daemon will know the entry.
    """

    uplink: str
    quota: QuotaStatus
    warnings: tuple[str, ...]
    saved: bool
