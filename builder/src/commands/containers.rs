//! Containers of `hull-build run`: their directories below the store, and what they are made of.

use hull_image::Store;

/// Names of the containers made from the image with this id.
pub(crate) fn users_of(store: &Store, id: &str) -> Result<Vec<String>, String> {
    let dir = store.dir().join("containers");
    let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(Vec::new()) };
    let mut users = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("read {}: {e}", dir.display()))?.path();
        let Ok(bytes) = std::fs::read(path.join("container.json")) else { continue };
        let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if record["image_id"] == id {
            users.push(record["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(users)
}
