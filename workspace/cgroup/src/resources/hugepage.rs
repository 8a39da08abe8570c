//! `hugepageLimits`: the reservation file where the kernel has it, and the usage file (config-linux.md, "huge page
//! limits"; hugetlb.rst).

use oci_spec::runtime::LinuxHugepageLimit;

use super::{Planner, Refusal, Version, refuse};

pub(super) fn plan(
    index: usize,
    limit: &LinuxHugepageLimit,
    planner: &mut Planner<'_>,
) -> Result<(), Refusal> {
    let field = format!("hugepageLimits/{index}");
    let size = limit.page_size();
    if !is_page_size(size) {
        return Err(refuse(&format!("{field}/pageSize"), format!("{size:?} is not a size like \"2MB\"")));
    }
    let slot = planner.need("hugetlb", &field)?;
    // The specification's type is unsigned, ours signed: what does not fit is "no limit" in practice.
    let value = limit.limit().to_string();
    let (usage, reservation, value) = match slot.version {
        Version::V1 => ("limit_in_bytes", "rsvd.limit_in_bytes", value),
        Version::V2 if limit.limit() < 0 => ("max", "rsvd.max", "max".to_owned()),
        Version::V2 => ("max", "rsvd.max", value),
    };
    let field = format!("{field}/limit");
    planner.push(slot, &format!("hugetlb.{size}.{reservation}"), &value, &field).optional = true;
    planner.push(slot, &format!("hugetlb.{size}.{usage}"), &value, &field);
    Ok(())
}

/// True for the names that hugetlb files carry: a number without leading zero and KB, MB or GB.
fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
    !number.is_empty() && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
}
