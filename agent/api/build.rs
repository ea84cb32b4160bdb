//! Generates messages, client and server of `agent.proto`. It needs protoc (Debian: protobuf-compiler), as containerd's client does.

fn main() -> std::io::Result<()> {
    let server = std::env::var_os("CARGO_FEATURE_SERVER").is_some();
    println!("cargo:rerun-if-changed=../proto");
    tonic_prost_build::configure()
        .build_server(server)
        .build_transport(false)
        .compile_protos(&["../proto/bpi/agent/v1/agent.proto"], &["../proto"])
}
