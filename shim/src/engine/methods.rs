//! From service, method and bytes to a call. Both versions of the Task service have the same messages.

use prost::Message;

use crate::task::Call;
use crate::ttrpc::{Code, Refusal, Request};

const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// Reads a call. What is not known is "unimplemented": containerd falls back to the older service on that code.
pub fn decode(request: &Request) -> Result<Call, Refusal> {
    if !SERVICES.contains(&request.service.as_str()) {
        return Err(Refusal::new(Code::Unimplemented, format!("service {}", request.service)));
    }
    let bytes = request.payload.as_slice();
    Ok(match request.method.as_str() {
        "Create" => Call::Create(read(bytes)?),
        "Start" => Call::Start(read(bytes)?),
        "State" => Call::State(read(bytes)?),
        "Wait" => Call::Wait(read(bytes)?),
        "Kill" => Call::Kill(read(bytes)?),
        "Delete" => Call::Delete(read(bytes)?),
        "Exec" => Call::Exec(read(bytes)?),
        "ResizePty" => Call::ResizePty(read(bytes)?),
        "CloseIO" => Call::CloseIo(read(bytes)?),
        "Pause" => Call::Pause(read(bytes)?),
        "Resume" => Call::Resume(read(bytes)?),
        "Pids" => Call::Pids(read(bytes)?),
        "Stats" => Call::Stats(read(bytes)?),
        "Update" => Call::Update(read(bytes)?),
        "Checkpoint" => Call::Checkpoint(read(bytes)?),
        "Connect" => Call::Connect(read(bytes)?),
        "Shutdown" => Call::Shutdown(read(bytes)?),
        other => return Err(Refusal::new(Code::Unimplemented, format!("method {other}"))),
    })
}

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|error| Refusal::new(Code::InvalidArgument, error.to_string()))
}
