//! Our messages against the protocol's own definitions, as another project compiles them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

use containerd_shim_protos as protos;
use hull_shim::api;
use hull_shim::ttrpc;
use protobuf::MessageFull as Theirs;

/// Every field of `T` gets a value; ours must read all of it and write the same bytes again.
fn holds<O: prost::Message + Default + PartialEq, T: Theirs>(theirs: &T) {
    let bytes = theirs.write_to_bytes().unwrap();
    let ours = O::decode(bytes.as_slice()).unwrap();
    assert!(ours != O::default(), "nothing was read of {theirs:?}");
    assert_eq!(T::parse_from_bytes(&ours.encode_to_vec()).unwrap(), *theirs);
}

/// Sets every field of a message to something, by its definition.
fn fill(message: &mut dyn protobuf::MessageDyn, depth: u32) {
    use protobuf::reflect::{ReflectValueBox as Value, RuntimeFieldType as Field, RuntimeType as Type};
    let value = |kind: &Type, number: i32| match kind {
        Type::I32 => Value::I32(number),
        Type::I64 => Value::I64(number.into()),
        Type::U32 => Value::U32(number.unsigned_abs()),
        Type::U64 => Value::U64(number.unsigned_abs().into()),
        Type::Bool => Value::Bool(true),
        Type::String => Value::String(format!("text {number}")),
        Type::VecU8 => Value::Bytes(vec![7; 3]),
        Type::Enum(kind) => Value::Enum(kind.clone(), 2),
        Type::Message(kind) => {
            let mut inner = kind.new_instance();
            if depth > 0 {
                fill(&mut *inner, depth - 1);
            }
            Value::Message(inner)
        }
        other => panic!("no value for {other:?}"),
    };
    for field in message.descriptor_dyn().fields() {
        let number = field.number();
        match field.runtime_field_type() {
            Field::Singular(kind) => field.set_singular_field(message, value(&kind, number)),
            Field::Repeated(kind) => field.mut_repeated(message).push(value(&kind, number)),
            Field::Map(key, kind) => field.mut_map(message).insert(value(&key, number), value(&kind, number)),
        }
    }
}

fn filled<T: Theirs>() -> T {
    let mut message = T::new();
    fill(&mut message, 2);
    message
}

macro_rules! agree {
    ($($ours:ty = $theirs:ty),+ $(,)?) => { $(holds::<$ours, $theirs>(&filled());)+ };
}

#[test]
fn task_messages_agree() {
    use protos::shim::shim as task;
    agree!(
        api::CreateTaskRequest = task::CreateTaskRequest,
        api::PidResponse = task::CreateTaskResponse,
        api::PidResponse = task::StartResponse,
        api::ProcessRequest = task::StartRequest,
        api::ProcessRequest = task::StateRequest,
        api::ProcessRequest = task::WaitRequest,
        api::ProcessRequest = task::DeleteRequest,
        api::ProcessRequest = task::PidsRequest,
        api::ProcessRequest = task::PauseRequest,
        api::ProcessRequest = task::ConnectRequest,
        api::ProcessRequest = task::StatsRequest,
        api::DeleteResponse = task::DeleteResponse,
        api::ExecProcessRequest = task::ExecProcessRequest,
        api::ResizePtyRequest = task::ResizePtyRequest,
        api::StateResponse = task::StateResponse,
        api::KillRequest = task::KillRequest,
        api::CloseIoRequest = task::CloseIORequest,
        api::PidsResponse = task::PidsResponse,
        api::CheckpointTaskRequest = task::CheckpointTaskRequest,
        api::UpdateTaskRequest = task::UpdateTaskRequest,
        api::WaitResponse = task::WaitResponse,
        api::StatsResponse = task::StatsResponse,
        api::ConnectResponse = task::ConnectResponse,
        api::ShutdownRequest = task::ShutdownRequest,
    );
}

#[test]
fn event_messages_agree() {
    use protos::events::task as events;
    agree!(
        api::TaskCreate = events::TaskCreate,
        api::TaskStart = events::TaskStart,
        api::TaskDelete = events::TaskDelete,
        api::TaskIo = events::TaskIO,
        api::TaskExit = events::TaskExit,
        api::TaskNamed = events::TaskOOM,
        api::TaskNamed = events::TaskPaused,
        api::TaskNamed = events::TaskResumed,
        api::TaskExec = events::TaskExecAdded,
        api::TaskExec = events::TaskExecStarted,
        api::ForwardRequest = protos::shim::events::ForwardRequest,
    );
}

#[test]
fn envelopes_agree() {
    use protos::ttrpc::proto as rpc;
    agree!(ttrpc::Request = rpc::Request, ttrpc::Response = rpc::Response);
}
