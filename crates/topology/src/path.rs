//! Where in a document something stands.

use std::fmt;

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field of an object.
    Field(String),
    /// An item of a list, from 0.
    Index(usize),
}

/// A place in a document; prints as `spec.topology.pipelines[0].steps[2].filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    segments: Vec<Segment>,
}

impl Path {
    /// The path of `spec.topology`, under which every path of a [`crate::PlanError`] lies.
    #[must_use]
    pub fn topology() -> Self {
        Self::default().field("spec").field("topology")
    }

    /// This path, and in there a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    /// This path, and in there an item of a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// From the root inwards.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.segments.clone();
        segments.push(segment);
        Self { segments }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Field(name) if is_plain(name) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(f, "{dot}{name}")?;
                }
                Segment::Field(name) => write!(f, "[{name:?}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prints_indexes_and_quotes_names_with_dots() {
        let path = Path::topology()
            .field("pipelines")
            .index(0)
            .field("steps")
            .index(2)
            .field("a.b");
        assert_eq!(path.to_string(), r#"spec.topology.pipelines[0].steps[2]["a.b"]"#);
    }
}
