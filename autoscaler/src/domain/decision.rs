//! What can be decided, and every reason there is for it. The reasons' words are at once log field, metric label and
//! the rows of the operator's table.

use crate::target::ReplicaId;

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start replicas until there are `to`, draining ones included.
    ScaleUp {
        /// The new replica count.
        to: u32,
        /// Why.
        reason: UpReason,
    },
    /// Let draining replicas take messages again.
    Resume {
        /// Which.
        replicas: Vec<ReplicaId>,
        /// Why.
        reason: UpReason,
    },
    /// Stop the intake of idle or starting replicas.
    Drain {
        /// Which.
        victims: Vec<ReplicaId>,
        /// Why.
        reason: DownReason,
    },
    /// Remove replicas that have drained.
    Remove {
        /// Which.
        replicas: Vec<ReplicaId>,
    },
    /// Change nothing.
    Hold {
        /// Why.
        reason: HoldReason,
    },
}

/// Why there are to be more replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpReason {
    /// There is none, and messages are ready.
    Activation,
    /// More messages than the replicas are worth.
    TargetPerReplica,
    /// There is none, and a call waits.
    CallsWaiting,
    /// Fewer than min-replicas.
    AtMin,
    /// More is asked for than max-replicas allows: up to that.
    AtMax,
}

/// Why there are to be fewer replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownReason {
    /// Nothing was to be done for a whole cool-down.
    CoolDownOver,
    /// Fewer messages for a whole cool-down than the replicas are worth.
    TargetPerReplica,
    /// More than max-replicas.
    AtMax,
}

/// Why nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// The count is right.
    NoChange,
    /// Nothing is to be done, and there are as few replicas as may be.
    AtMin,
    /// More is asked for, and there are as many replicas as may be.
    AtMax,
    /// Fewer would do now; they stay until that has lasted for the cool-down.
    CoolDown,
    /// The depth of the queue is not known.
    SampleUnknown,
    /// The replicas are not known.
    FleetUnknown,
    /// Nothing else is to be done, but whether there are calls is not known.
    CallsUnknown,
    /// There are too many replicas, and what runs them lets none go now.
    Kept,
    /// The count is right, and not all are ready yet.
    Starting,
    /// Draining replicas are finishing what they hold.
    DrainingBusy,
    /// There are too many replicas, and each has work.
    ReplicasBusy,
}

impl UpReason {
    /// The stable word for logs, labels and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activation => "activation",
            Self::TargetPerReplica => "target_per_replica",
            Self::CallsWaiting => "calls_waiting",
            Self::AtMin => "at_min",
            Self::AtMax => "at_max",
        }
    }
}

impl DownReason {
    /// The stable word for logs, labels and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CoolDownOver => "cool_down_over",
            Self::TargetPerReplica => "target_per_replica",
            Self::AtMax => "at_max",
        }
    }
}

impl HoldReason {
    /// The stable word for logs, labels and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoChange => "no_change",
            Self::AtMin => "at_min",
            Self::AtMax => "at_max",
            Self::CoolDown => "cool_down",
            Self::SampleUnknown => "sample_unknown",
            Self::FleetUnknown => "fleet_unknown",
            Self::CallsUnknown => "calls_unknown",
            Self::Kept => "kept",
            Self::Starting => "starting",
            Self::DrainingBusy => "draining_busy",
            Self::ReplicasBusy => "replicas_busy",
        }
    }
}

impl Decision {
    /// The stable word for logs, labels and docs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ScaleUp { .. } => "scale_up",
            Self::Resume { .. } => "resume",
            Self::Drain { .. } => "drain",
            Self::Remove { .. } => "remove",
            Self::Hold { .. } => "hold",
        }
    }

    /// The reason's stable word; `drained` for a removal, which has no other.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ScaleUp { reason, .. } | Self::Resume { reason, .. } => reason.as_str(),
            Self::Drain { reason, .. } => reason.as_str(),
            Self::Remove { .. } => "drained",
            Self::Hold { reason } => reason.as_str(),
        }
    }

    /// Whether applying it changes nothing.
    pub fn is_hold(&self) -> bool {
        matches!(self, Self::Hold { .. })
    }
}
