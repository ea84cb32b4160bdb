#![allow(clippy::unwrap_used, missing_docs)]
//! A client and a server of the same socket.

use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;

use bpi_agent_api::tonic::{Request, Response, Status, async_trait};
use bpi_agent_api::v1::agent_server::Agent;
use bpi_agent_api::v1::*;
use bpi_agent_api::{AskError, bind, connect, of_container, of_record, serve};
use tokio_stream::Stream;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Says what it is told to.
struct Puppet {
    levels: Vec<Level>,
    files: Vec<(&'static str, &'static str)>,
}

#[async_trait]
impl Agent for Puppet {
    type WaitStream = Replies<WaitReply>;
    type EvidenceStream = Replies<EvidencePart>;
    type RunStream = Replies<RunReply>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(StatusReply { version: "1".to_owned(), ..Default::default() }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<Self::WaitStream>, Status> {
        let receipt = request.into_inner().receipt.unwrap();
        if receipt.boundary == "nowhere" {
            return Err(Status::not_found("no container of that name has a receipt"));
        }
        let replies: Vec<_> =
            self.levels.iter().map(|level| Ok(WaitReply { level: (*level).into(), ..Default::default() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn evidence(&self, _: Request<EvidenceRequest>) -> Result<Response<Self::EvidenceStream>, Status> {
        let part = |(name, bytes): &(&str, &str)| {
            Ok(EvidencePart { name: (*name).to_owned(), bytes: bytes.as_bytes().to_vec() })
        };
        let parts: Vec<_> = self.files.iter().map(part).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn run(&self, _: Request<RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        Err(Status::failed_precondition("no containerd"))
    }

    async fn batches(&self, _: Request<BatchesRequest>) -> Result<Response<BatchesReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn incidents(&self, _: Request<IncidentsRequest>) -> Result<Response<IncidentsReply>, Status> {
        Ok(Response::new(Default::default()))
    }
}

async fn with(
    levels: &[Level],
    files: &[(&'static str, &'static str)],
) -> (tempfile::TempDir, bpi_agent_api::Client, tokio::sync::oneshot::Sender<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = bind(&path).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let puppet = Puppet { levels: levels.to_vec(), files: files.to_vec() };
    tokio::spawn(serve(listener, puppet, async move { stopped.await.unwrap_or(()) }));
    let client = connect(&path).await.unwrap();
    (folder, client, stop)
}

#[tokio::test]
async fn a_wait_ends_at_the_level_that_is_asked_for() {
    let (_folder, mut client, _stop) = with(&[Level::Seen, Level::Kept, Level::Final], &[]).await;
    let mut heard = Vec::new();
    let last = client.wait(of_container("", "c"), Level::Kept, |reply| heard.push(reply.level())).await.unwrap();
    assert_eq!((last.level(), heard), (Level::Kept, vec![Level::Seen, Level::Kept]));
    assert_eq!(client.wait(of_record("k8s.io", 3), Level::Final, |_| {}).await.unwrap().level(), Level::Final);
    assert_eq!(client.raw().status(StatusRequest {}).await.unwrap().into_inner().version, "1");
}

#[tokio::test]
async fn an_agent_that_stops_or_refuses_says_so() {
    let (_folder, mut client, _stop) = with(&[Level::Seen, Level::Packed], &[]).await;
    let error = client.wait(of_container("", "c"), Level::Final, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("before the receipt was final; it is packed"), "{error}");
    let error = client.wait(of_container("nowhere", "c"), Level::Final, |_| {}).await.unwrap_err();
    assert!(matches!(&error, AskError::Refused { .. }) && error.to_string().contains("no container"), "{error}");
}

#[tokio::test]
async fn evidence_comes_file_by_file_and_never_leads_elsewhere() {
    let (_folder, mut client, _stop) = with(&[], &[("a", "1"), ("a", "2"), ("b", "3")]).await;
    let files = client.evidence(of_container("", "c")).await.unwrap();
    assert_eq!(files, [("a".to_owned(), b"12".to_vec()), ("b".to_owned(), b"3".to_vec())]);
    for name in ["../a", "/etc/passwd", "", ".", "..", "a/b"] {
        let (_folder, mut client, _stop) = with(&[], &[(name, "1")]).await;
        assert!(matches!(client.evidence(of_container("", "c")).await, Err(AskError::Evidence { .. })), "{name}");
    }
}

#[tokio::test]
async fn the_socket_is_its_owners_and_takes_the_place_of_an_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let error = connect(&path).await.unwrap_err();
    assert!(error.to_string().contains("agent.sock"), "{error}");
    for _ in 0..2 {
        let listener = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
    }
    assert!(bind(&folder.path().join("missing/agent.sock")).is_err());
}

#[test]
fn a_level_is_said_by_one_word() {
    for level in [Level::Seen, Level::Packed, Level::Kept, Level::Included, Level::Final] {
        assert_eq!(Level::of_word(level.word()), Some(level));
    }
    assert_eq!(Level::of_word("unknown"), None);
}
