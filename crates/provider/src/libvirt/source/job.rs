//! The backup job of a frozen state, as XML (<https://libvirt.org/formatbackup.html>), and the names in it.
//!
//! A state is called `vmferry-TAG-NONCE`: the tag is the owner's, the nonce this job's. Both are in the names of the scratch
//! files, so whoever finds the job later knows whose it is and which state it holds.

use crate::libvirt::xml::tree::{Element, XmlError};

/// A pull-mode backup job of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub id: StateId,
    pub server: Server,
    pub disks: Vec<JobDisk>,
}

/// The name of a frozen state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateId {
    pub tag: String,
    pub nonce: String,
}

/// Where the job's NBD server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// A unix socket on the host.
    Unix(String),
    /// A TCP address of the host.
    Tcp { host: String, port: u16 },
}

/// A disk of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobDisk {
    /// Its target name, which is also the name of its export.
    pub target: String,
    /// Where what the guest overwrites is kept.
    pub scratch: String,
}

impl StateId {
    /// A new state of the owner with this tag.
    pub fn new(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            nonce: format!("{:08x}", rand::random::<u32>()),
        }
    }

    /// What all its names begin with.
    pub fn prefix(tag: &str) -> String {
        format!("vmferry-{tag}-")
    }

    /// The scratch file of a disk, beside its image, where it has a name that the file system takes.
    pub fn scratch(&self, image: &str, target: &str) -> String {
        let (folder, name) = image.rsplit_once('/').unwrap_or(("", image));
        let beside = format!("{name}.{self}.scratch");
        if beside.len() <= 255 {
            format!("{folder}/{beside}")
        } else {
            format!("{folder}/{target}.{self}.scratch")
        }
    }

    /// The state that a scratch file belongs to.
    pub fn of_scratch(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_suffix(".scratch")?;
        let (_, id) = name.rsplit_once(".vmferry-")?;
        let (tag, nonce) = id.split_once('-')?;
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_hex(tag) && is_hex(nonce) && nonce.len() == 8).then(|| Self {
            tag: tag.to_owned(),
            nonce: nonce.to_owned(),
        })
    }
}

impl std::fmt::Display for StateId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", Self::prefix(&self.tag), self.nonce)
    }
}

impl Job {
    /// The XML for `virDomainBackupBegin`.
    pub fn render(&self) -> Result<String, XmlError> {
        let server = Element::new("server");
        let server = match &self.server {
            Server::Unix(socket) => server.with("transport", "unix").with("socket", socket),
            Server::Tcp { host, port } => server
                .with("transport", "tcp")
                .with("name", host)
                .with("port", port.to_string()),
        };
        let disks = self.disks.iter().map(|disk| {
            Element::new("disk")
                .with("name", &disk.target)
                .with("backup", "yes")
                .with("type", "file")
                .with("exportname", &disk.target)
                .child_of(Element::new("driver").with("type", "qcow2"))
                .child_of(Element::new("scratch").with("file", &disk.scratch))
        });
        Element::new("domainbackup")
            .with("mode", "pull")
            .child_of(server)
            .child_of(Element::new("disks").children_of(disks))
            .render()
    }

    /// The XML of a checkpoint of the same moment and name.
    pub fn render_checkpoint(&self) -> Result<String, XmlError> {
        let disks = self.disks.iter().map(|disk| {
            Element::new("disk")
                .with("name", &disk.target)
                .with("checkpoint", "bitmap")
        });
        Element::new("domaincheckpoint")
            .child_of(Element::new("name").text_of(self.id.to_string()))
            .child_of(Element::new("disks").children_of(disks))
            .render()
    }

    /// Reads the answer of `virDomainBackupGetXMLDesc`. `None` where the job is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        let root = Element::parse(text).ok()?;
        let server = root.child("server")?;
        let server = match server.attr("transport")? {
            "unix" => Server::Unix(server.attr("socket")?.to_owned()),
            "tcp" => Server::Tcp {
                host: server.attr("name")?.to_owned(),
                port: server.attr("port")?.parse().ok()?,
            },
            _ => return None,
        };
        let disks = root.child("disks")?;
        let disks: Vec<JobDisk> = disks
            .all("disk")
            .filter(|disk| disk.attr("backup") != Some("no"))
            .map(|disk| {
                Some(JobDisk {
                    target: disk.attr("name")?.to_owned(),
                    scratch: disk.attr_at(&["scratch"], "file")?.to_owned(),
                })
            })
            .collect::<Option<_>>()?;
        let id = StateId::of_scratch(&disks.first()?.scratch)?;
        let all_ours = disks
            .iter()
            .all(|disk| StateId::of_scratch(&disk.scratch).as_ref() == Some(&id));
        all_ours.then_some(Self { id, server, disks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(image: &str) -> Job {
        let id = StateId {
            tag: "0123456789ab".into(),
            nonce: "deadbeef".into(),
        };
        let scratch = id.scratch(image, "vda");
        Job {
            id,
            server: Server::Unix("/run/a&b.sock".into()),
            disks: vec![JobDisk {
                target: "vda".into(),
                scratch,
            }],
        }
    }

    #[test]
    fn a_job_is_recognised_again() {
        for image in [
            "/pool/a.qcow2",
            "/pool/a'<b>.qcow2",
            &format!("/pool/{}", "x".repeat(250)),
        ] {
            let job = job(image);
            assert_eq!(Job::parse(&job.render().unwrap()), Some(job));
        }
        let tcp = Job {
            server: Server::Tcp {
                host: "10.0.0.1".into(),
                port: 50_000,
            },
            ..job("/pool/a")
        };
        assert_eq!(Job::parse(&tcp.render().unwrap()), Some(tcp));
    }

    #[test]
    fn a_job_of_another_is_not_ours() {
        let text = job("/pool/a").render().unwrap();
        assert!(Job::parse(&text.replace(".scratch", ".backup")).is_none());
        assert!(Job::parse(&text.replace("deadbeef", "x")).is_none());
        assert!(Job::parse("<domainbackup mode='push'/>").is_none());
    }

    #[test]
    fn names_fit_a_file_system() {
        let id = StateId::new("0123456789ab");
        let scratch = id.scratch(&format!("/pool/{}", "x".repeat(255)), "vdb");
        assert!(scratch.rsplit('/').next().unwrap().len() <= 255, "{scratch}");
        assert_eq!(StateId::of_scratch(&scratch), Some(id));
    }
}
