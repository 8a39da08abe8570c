//! Kernel parameters, written through the proved procfs only (R3, CVE-2025-52881).

use crate::error::{Context, Result};
use hull_plan::Sysctl;
use hull_rooted::{Entry, Proc};

/// Writes all of `parameters`.
pub fn write_all(parameters: &[Sysctl], proc: &Proc) -> Result<()> {
    for parameter in parameters {
        proc.write(Entry::Parameter(&parameter.path), parameter.value.as_bytes())
            .context(|| format!("write sysctl {} = {}", parameter.path.replace('/', "."), parameter.value))
            .map_err(|error| error.field(parameter.field.clone()))?;
    }
    Ok(())
}
