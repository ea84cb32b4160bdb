//! What the switch counts: plain numbers that the edge takes now and then and adds to its figures, so forwarding touches no atomic.

/// Why something was dropped. The names are those of the figures and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Bytes that are no frame, or a body that is too long.
    Malformed,
    /// For a network that is not served here.
    WrongNetwork,
    /// It came too late.
    Expired,
    /// It would live for longer than any frame may.
    FarExpiry,
    /// A copy is on its way already.
    Duplicate,
    /// Nobody takes frames for that key, or none lately.
    NoRoute,
    /// Over the budget of its SPIFFE id.
    BudgetAccount,
    /// Over the budget of its prefix.
    BudgetPrefix,
    /// Over the budget of its ASN.
    BudgetAsn,
    /// Nothing is spare.
    BudgetRelay,
    /// Its sender misbehaved and is out for a while.
    CutOff,
    /// It came over a connection that the switch does not know.
    UnknownConnection,
    /// Its sender's role may not do that.
    NotAllowed,
    /// It waited, and its sender sent more than may wait.
    StoreSender,
    /// It waited, and more came for its key than may wait.
    StoreKey,
    /// It waited, and the store was full.
    StoreTotal,
    /// It waited, and its time was up.
    StoreExpired,
    /// It is larger than what may wait.
    StoreTooLarge,
    /// A connection's queue was full.
    Undelivered,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::WrongNetwork,
        Self::Expired,
        Self::FarExpiry,
        Self::Duplicate,
        Self::NoRoute,
        Self::BudgetAccount,
        Self::BudgetPrefix,
        Self::BudgetAsn,
        Self::BudgetRelay,
        Self::CutOff,
        Self::UnknownConnection,
        Self::NotAllowed,
        Self::StoreSender,
        Self::StoreKey,
        Self::StoreTotal,
        Self::StoreExpired,
        Self::StoreTooLarge,
        Self::Undelivered,
    ];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongNetwork => "wrong_network",
            Self::Expired => "expired",
            Self::FarExpiry => "far_expiry",
            Self::Duplicate => "duplicate",
            Self::NoRoute => "no_route",
            Self::BudgetAccount => "budget_account",
            Self::BudgetPrefix => "budget_prefix",
            Self::BudgetAsn => "budget_asn",
            Self::BudgetRelay => "budget_relay",
            Self::CutOff => "cut_off",
            Self::UnknownConnection => "unknown_connection",
            Self::NotAllowed => "not_allowed",
            Self::StoreSender => "store_sender",
            Self::StoreKey => "store_key",
            Self::StoreTotal => "store_total",
            Self::StoreExpired => "store_expired",
            Self::StoreTooLarge => "store_too_large",
            Self::Undelivered => "undelivered",
        }
    }
}

/// What happened since the tally was taken last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that came, whatever became of them.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that came and were handed to somebody or stored.
    pub frames_taken: u64,
    /// Copies that were handed to connections.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames that were stored.
    pub stored: u64,
    /// Of stored frames those that were handed on at last.
    pub stored_out: u64,
    /// Registrations of keys.
    pub registrations: u64,
    /// Headers that were published.
    pub published: u64,
    /// Connections that a fault closed.
    pub closed: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Tally {
    /// Counts drops.
    #[inline]
    pub(crate) fn drop(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }

    /// What was dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}
