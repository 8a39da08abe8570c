//! What the container uses: the data of runc's `events --stats`, with its member names, order and omissions.

mod read;
mod v1;
mod v2;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::Layout;
use crate::cgroup::Cgroup;
use crate::error::Result;

/// Everything that is measured. Serialises to the `data` of a `stats` event.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// Processor time.
    pub cpu: Cpu,
    /// Processors and memory nodes.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Processes.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages by page size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Always empty: no resctrl group is read.
    pub intel_rdt: Empty,
    /// Always null: control groups do not count packets.
    pub network_interfaces: Option<Empty>,
}

/// An object without members.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Empty {}

/// Processor time.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time kept back by the quota.
    pub throttling: Throttling,
    /// Time lost by waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time in nanoseconds.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// By processor (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// By processor, in the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// By processor, in programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// What the quota did.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which the quota ran out.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds kept back.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Processors and memory nodes, and version 1's switches.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct CpuSet {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// `cpuset.cpu_exclusive`.
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// `cpuset.mem_hardwall`.
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`.
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`.
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`.
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`.
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`.
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`.
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`.
    pub sched_relax_domain_level: i64,
}

/// Memory in bytes.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// The kernel's part (version 1).
    pub kernel: MemoryEntry,
    /// TCP buffers (version 1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat` as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Time lost by waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// May be used.
    pub limit: u64,
    /// Is used.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Was used at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Processes.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Allowed; 0 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Requests in the queue.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Nanoseconds of service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds of waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Merged requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Time lost by waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A number of one device.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// Device.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Device.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// Kind of request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size in bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// Is used.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Was used at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Time lost by waiting for a resource (psi.rst).
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Pressure {
    /// By some processes.
    pub some: PressureLine,
    /// By all of them at once.
    pub full: PressureLine,
}

/// Shares in percent over 10, 60 and 300 seconds, and microseconds in total.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct PressureLine {
    /// Percent over 10 s.
    #[serde(serialize_with = "short")]
    pub avg10: f64,
    /// Percent over 60 s.
    #[serde(serialize_with = "short")]
    pub avg60: f64,
    /// Percent over 300 s.
    #[serde(serialize_with = "short")]
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

impl Cgroup {
    /// Measures the container. What the host does not count stays zero; a group that is gone counts nothing.
    ///
    /// # Errors
    /// A file that exists cannot be read.
    pub fn statistics(&self) -> Result<Statistics> {
        let mut statistics = Statistics::default();
        if self.layout != Layout::V2 {
            v1::collect(self, &mut statistics)?;
        }
        if let Some(node) = self.v2() {
            v2::collect_hugetlb(node, &mut statistics)?;
            if self.layout == Layout::V2 {
                v2::collect(node, &mut statistics)?;
            }
        }
        Ok(statistics)
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Writes whole numbers without a decimal point.
fn short<S: Serializer>(value: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    if value.fract() == 0.0 {
        serializer.serialize_u64(*value as u64)
    } else {
        serializer.serialize_f64(*value)
    }
}

#[cfg(test)]
mod tests;
