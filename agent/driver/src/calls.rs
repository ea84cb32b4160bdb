//! How containerd is asked: its namespace and lease in the metadata of every request, each call with an end, each refusal with its name.

use std::time::Duration;

use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::{Request, Response, Status};
use prost_types::Timestamp;

use crate::error::DriverError;
use crate::order::{OrderError, name};

/// How long an ordinary call may take. Unpacking a layer has [`UNPACK`], waiting has no end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a layer may take.
pub(crate) const UNPACK: Duration = Duration::from_secs(600);

/// In whose name requests are made.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) namespace: String,
    value: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Scope {
    pub(crate) fn new(namespace: &str) -> Result<Self, OrderError> {
        name("the namespace", namespace)?;
        let wrong = |_| OrderError::Name { field: "the namespace", value: namespace.to_owned() };
        Ok(Self { namespace: namespace.to_owned(), value: namespace.parse().map_err(wrong)?, lease: None })
    }

    /// What is made in this scope stays as long as the lease.
    pub(crate) fn leased(mut self, lease: &str) -> Result<Self, OrderError> {
        let wrong = |_| OrderError::Name { field: "the lease", value: lease.to_owned() };
        self.lease = Some(lease.parse().map_err(wrong)?);
        Ok(self)
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.value.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        request
    }
}

/// Waits for an answer, for so long.
pub(crate) async fn answer<T>(
    (doing, name): (&'static str, &str),
    patience: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, DriverError> {
    let said = tokio::time::timeout(patience, call).await.map_err(|_| DriverError::Patience {
        doing,
        name: name.to_owned(),
        patience_s: patience.as_secs(),
    })?;
    said.map(Response::into_inner).map_err(refused(doing, name))
}

/// A refusal and what was refused.
pub(crate) fn refused(doing: &'static str, name: &str) -> impl FnOnce(Status) -> DriverError {
    let name = name.to_owned();
    move |status| DriverError::Call { doing, name, status: Box::new(status) }
}

/// Ms since 1970; before that, and none, are 0.
pub(crate) fn ms(time: Option<&Timestamp>) -> u64 {
    time.map_or(0, |time| {
        let seconds = u64::try_from(time.seconds).unwrap_or(0);
        seconds.saturating_mul(1000).saturating_add(u64::try_from(time.nanos).unwrap_or(0) / 1_000_000)
    })
}
