//! `parquedb.toml` or `parquedb.json` in a database's directory.

use std::path::Path;

use serde_json::Value;

use super::ConfigError;
use crate::model::{ReferenceError, Visibility, is_slug};

/// What a database says of itself. Keys may be written with or without the original's leading `$`; keys this
/// program does not know are left to the programs that do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseFile {
    /// The name for people.
    pub name: Option<String>,
    /// The owner it belongs to.
    pub owner: Option<String>,
    /// Its slug.
    pub slug: Option<String>,
    /// Its visibility.
    pub visibility: Option<Visibility>,
    /// The remote it would like to be synced with.
    pub remote: Option<String>,
    /// Which file said so.
    pub file_name: Option<&'static str>,
}

/// Never taken from a database's own file.
const FORBIDDEN: [&str; 7] =
    ["token", "token_file", "tokenFile", "hooks", "cache_dir", "state_dir", "credentials"];

impl DatabaseFile {
    /// Reads `parquedb.toml`, else `parquedb.json`; a directory without either says nothing.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        for file_name in ["parquedb.toml", "parquedb.json"] {
            let path = dir.join(file_name);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ConfigError::file(&path)(error)),
            };
            let invalid = |why: String| ConfigError::Invalid(format!("{}: {why}", path.display()));
            let value: Value = if file_name.ends_with(".toml") {
                toml::from_str(&text).map_err(|error| invalid(error.message().to_owned()))?
            } else {
                serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?
            };
            return Self::from_value(&value, file_name).map_err(invalid);
        }
        Ok(Self::default())
    }

    fn from_value(value: &Value, file_name: &'static str) -> Result<Self, String> {
        let Value::Object(fields) = value else { return Err("it is not a table of settings".into()) };
        if let Some(key) = FORBIDDEN.into_iter().find(|key| fields.contains_key(*key)) {
            return Err(format!(
                "a database's own file may not set '{key}': move it to your user configuration or a flag"
            ));
        }
        let text = |key: &str| match fields.get(key).or_else(|| fields.get(&format!("${key}"))) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("'{key}' is not a text")),
        };
        let slug = text("slug")?;
        if let Some(bad) = slug.as_deref().filter(|slug| !is_slug(slug)) {
            return Err(ReferenceError::Slug(bad.to_owned()).to_string());
        }
        let visibility =
            text("visibility")?.map(|v| v.parse().map_err(|e| format!("'{v}': {e}"))).transpose()?;
        Ok(Self {
            name: text("name")?,
            owner: text("owner")?,
            slug,
            visibility,
            remote: text("remote")?,
            file_name: Some(file_name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<DatabaseFile, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        DatabaseFile::read(dir.path())
    }

    #[test]
    fn toml_and_json_say_the_same_with_or_without_the_dollar() {
        let toml = read(
            "parquedb.toml",
            "slug = 'a-b'\n\"$visibility\" = 'public'\nname = 'N'\n[storage]\ntype='fs'",
        )
        .unwrap();
        let json =
            read("parquedb.json", r#"{"$slug":"a-b","visibility":"public","name":"N","version":"1.0"}"#)
                .unwrap();
        assert_eq!(toml.slug.as_deref(), Some("a-b"));
        assert_eq!(toml.visibility, Some(Visibility::Public));
        assert_eq!(DatabaseFile { file_name: json.file_name, ..toml }, json);
    }

    #[test]
    fn rule_30_a_database_cannot_bring_tokens_or_hooks() {
        for text in ["token = 'x'", "token_file = '/etc/passwd'", "[hooks]\nafter-sync = 'sh'"] {
            assert!(read("parquedb.toml", text).unwrap_err().to_string().contains("may not set"), "{text}");
        }
        assert!(read("parquedb.toml", "slug = 'NOT A SLUG'").is_err());
        assert!(read("parquedb.toml", "visibility = 'secret'").is_err());
        assert!(read("parquedb.json", "{").is_err());
    }
}
