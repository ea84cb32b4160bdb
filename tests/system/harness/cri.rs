//! What a kubelet says to containerd, said by hand: CRI v1 over containerd's socket.
//!
//! Absent on purpose: streaming exec and attach (they need the kubelet's HTTP proxy); `ExecSync` is what probes use.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use containerd_client::tonic::{self, transport::Channel};
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStats, ContainerStatsRequest, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, ListImagesRequest, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, StopPodSandboxRequest,
};
use tokio::runtime::Runtime;

use crate::Failure;

/// A connection, with a runtime of its own so that tests stay ordinary functions.
pub struct Cri {
    runtime: Runtime,
    client: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// A pod as the kubelet would name it.
pub struct Pod {
    /// Its sandbox id.
    pub id: String,
    config: PodSandboxConfig,
}

impl Cri {
    /// Connects to containerd's socket.
    ///
    /// # Errors
    /// When nothing answers there.
    pub fn connect(socket: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no tokio runtime: {error}"))?;
        let channel = runtime.block_on(containerd_client::connect(socket));
        let channel = channel.map_err(|error| format!("cannot connect to {}: {error}", socket.display()))?;
        Ok(Self {
            runtime,
            client: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        })
    }

    fn wait<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        let limited = async { tokio::time::timeout(Duration::from_secs(60), call).await };
        match self.runtime.block_on(limited) {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(format!("{what}: {}", status.message()).into()),
            Err(_) => Err(format!("{what}: no answer within a minute").into()),
        }
    }

    /// Names of the images that CRI sees.
    ///
    /// # Errors
    /// When containerd answers with an error.
    pub fn images(&mut self) -> Result<Vec<String>, Failure> {
        let mut images = self.images.clone();
        let answer = self.wait("ListImages", images.list_images(ListImagesRequest { filter: None }))?;
        Ok(answer.images.into_iter().flat_map(|image| image.repo_tags).collect())
    }

    /// `RunPodSandbox` with the runtime handler `docklock`, logs below `logs`.
    ///
    /// # Errors
    /// When containerd answers with an error.
    pub fn run_pod(&mut self, name: &str, logs: &Path, annotations: &[(&str, &str)]) -> Result<Pod, Failure> {
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: logs.to_string_lossy().into_owned(),
            annotations: map(annotations),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: format!("/{name}"), ..Default::default() }),
            ..Default::default()
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "docklock".into() };
        let mut client = self.client.clone();
        let answer = self.wait("RunPodSandbox", client.run_pod_sandbox(request))?;
        Ok(Pod { id: answer.pod_sandbox_id, config })
    }

    /// `CreateContainer` and `StartContainer`; its log is `<name>.log` in the pod's log folder.
    ///
    /// # Errors
    /// When containerd answers with an error.
    pub fn start(
        &mut self,
        pod: &Pod,
        name: &str,
        image: &str,
        argv: &[&str],
        annotations: &[(&str, &str)],
    ) -> Result<String, Failure> {
        let security = LinuxContainerSecurityContext {
            namespace_options: Some(NamespaceOption { pid: 1, ..Default::default() }), // 1: CONTAINER
            ..Default::default()
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: image.into(), ..Default::default() }),
            command: argv.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}.log"),
            annotations: map(annotations),
            linux: Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let mut client = self.client.clone();
        let id = self.wait("CreateContainer", client.create_container(request))?.container_id;
        let start = StartContainerRequest { container_id: id.clone() };
        self.wait("StartContainer", client.start_container(start))?;
        Ok(id)
    }

    /// `ExecSync`.
    ///
    /// # Errors
    /// When containerd answers with an error.
    pub fn exec(&mut self, container: &str, argv: &[&str]) -> Result<ExecSyncResponse, Failure> {
        let cmd = argv.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecSyncRequest { container_id: container.to_owned(), cmd, timeout: 30 };
        let mut client = self.client.clone();
        self.wait("ExecSync", client.exec_sync(request))
    }

    /// `ContainerStats`.
    ///
    /// # Errors
    /// When containerd answers with an error or without stats.
    pub fn stats(&mut self, container: &str) -> Result<ContainerStats, Failure> {
        let mut client = self.client.clone();
        let request = ContainerStatsRequest { container_id: container.to_owned() };
        let answer = self.wait("ContainerStats", client.container_stats(request))?;
        answer.stats.ok_or_else(|| "ContainerStats: an answer without stats".into())
    }

    /// State and exit code by `ContainerStatus`.
    ///
    /// # Errors
    /// When containerd answers with an error or without a status.
    pub fn status(&mut self, container: &str) -> Result<(ContainerState, i32), Failure> {
        let mut client = self.client.clone();
        let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let status = self.wait("ContainerStatus", client.container_status(request))?.status;
        let status = status.ok_or("ContainerStatus: an answer without a status")?;
        Ok((status.state(), status.exit_code))
    }

    /// `StopContainer` with a grace of `seconds`, then `RemoveContainer`.
    ///
    /// # Errors
    /// When containerd answers with an error.
    pub fn stop_and_remove(&mut self, container: &str, seconds: i64) -> Result<(), Failure> {
        let mut client = self.client.clone();
        let container_id = container.to_owned();
        self.wait(
            "StopContainer",
            client.stop_container(StopContainerRequest { container_id: container_id.clone(), timeout: seconds }),
        )?;
        self.wait("RemoveContainer", client.remove_container(RemoveContainerRequest { container_id })).map(|_| ())
    }

    /// `StopPodSandbox`, then `RemovePodSandbox`.
    ///
    /// # Errors
    /// When containerd answers with an error.
    pub fn remove_pod(&mut self, pod: &Pod) -> Result<(), Failure> {
        let mut client = self.client.clone();
        let pod_sandbox_id = pod.id.clone();
        self.wait(
            "StopPodSandbox",
            client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }),
        )?;
        self.wait("RemovePodSandbox", client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id })).map(|_| ())
    }
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
