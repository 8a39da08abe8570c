//! The canonical form of what is hashed, and the rule that `null` means absent.

use serde::{Deserialize, Deserializer, Serialize};

/// Writes `value` as JSON whose object keys are sorted and which has no white space, so that equal values are equal bytes.
pub fn canonical<T: Serialize>(value: &T) -> Vec<u8> {
    // `Value` keeps objects in a `BTreeMap`: going through it sorts the keys.
    let tree = serde_json::to_value(value).expect("documents have string keys and no failing serialiser");
    serde_json::to_vec(&tree).expect("a JSON tree can always be written")
}

/// Reads a field for which `null` means the same as absent (image specification, configuration).
pub fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
