//! What is where on the server: paths below the endpoint. Folders end with a slash.

use crate::ObjectKey;

/// The names around one object.
#[derive(Debug, Clone)]
pub(super) struct Names<'a> {
    /// The folder of the object: empty, or with a slash at its end.
    folder: &'a str,
    /// Its last segment.
    name: &'a str,
}

impl<'a> Names<'a> {
    pub(super) fn of(key: &'a ObjectKey) -> Self {
        let text = key.as_str();
        let at = text.rfind('/').map_or(0, |at| at + 1);
        let (folder, name) = text.split_at(at);
        Self { folder, name }
    }

    /// The object, where it is one file.
    pub(super) fn object(&self) -> String {
        format!("{}{}", self.folder, self.name)
    }

    /// What says which segments make up the object, where it is not one file.
    pub(super) fn manifest(&self) -> String {
        format!("{}{}.manifest.json", self.folder, self.name)
    }

    /// The folder of the object's segments.
    pub(super) fn segments(&self) -> String {
        format!("{}{}.parts/", self.folder, self.name)
    }

    /// The folder of everything that is not whole yet. No key leads into it.
    pub(super) fn uploads(&self) -> String {
        format!("{}.{}.parts/", self.folder, self.name)
    }

    /// Which upload is about to become the object.
    pub(super) fn pointer(&self) -> String {
        format!("{}.completing", self.uploads())
    }

    pub(super) fn note(&self) -> String {
        format!("{}.{}.note", self.folder, self.name)
    }

    /// The folders that may be empty when nothing is left of the object, the deepest first.
    pub(super) fn folders(&self) -> Vec<String> {
        let leading = self
            .folder
            .rmatch_indices('/')
            .map(|(at, _)| self.folder[..=at].to_owned());
        std::iter::once(self.segments()).chain(leading).collect()
    }
}

/// The name of a segment. So many digits that names sort as numbers do.
pub(super) fn segment(number: u32) -> String {
    format!("{number:08}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_beside_the_object() {
        let key: ObjectKey = "a/b/disk".parse().unwrap();
        let names = Names::of(&key);
        assert_eq!(names.object(), "a/b/disk");
        assert_eq!(names.uploads(), "a/b/.disk.parts/");
        assert_eq!(names.note(), "a/b/.disk.note");
        assert_eq!(names.folders(), ["a/b/disk.parts/", "a/b/", "a/"]);
        let key: ObjectKey = "disk".parse().unwrap();
        assert_eq!(Names::of(&key).segments(), "disk.parts/");
        assert_eq!(Names::of(&key).folders(), ["disk.parts/"]);
    }
}
