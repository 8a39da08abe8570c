//! The command line of shims: Go's flags, one dash or two, before the action.

/// What containerd wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// Start the daemon, or find the one of the pod.
    Start,
    /// Clear up after a daemon that is gone.
    Delete,
    /// Tell what the runtime can do.
    Info,
    /// Print the version.
    Version,
    /// Be the daemon.
    #[default]
    Serve,
}

/// The flags of shims, as containerd gives them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// What to do.
    pub action: Action,
    /// containerd's namespace.
    pub namespace: String,
    /// The container, or in the daemon's own form the pod.
    pub id: String,
    /// containerd's own socket.
    pub address: String,
    /// The bundle, for the delete action.
    pub bundle: String,
    /// The daemon's own socket.
    pub socket: String,
}

impl Flags {
    /// Reads the arguments after the program's name.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.action = match arg.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(format!("unknown action {other:?}")),
                };
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let place = match name {
                "namespace" => &mut flags.namespace,
                "id" => &mut flags.id,
                "address" => &mut flags.address,
                "bundle" => &mut flags.bundle,
                "socket" => &mut flags.socket,
                "publish-binary" => &mut String::new(),
                "debug" => continue,
                "v" | "version" => {
                    flags.action = Action::Version;
                    continue;
                }
                "info" => {
                    flags.action = Action::Info;
                    continue;
                }
                other => return Err(format!("flag provided but not defined: -{other}")),
            };
            *place =
                inline.or_else(|| args.next()).ok_or_else(|| format!("flag needs an argument: -{name}"))?;
        }
        flags.check()
    }

    /// The namespace and the id become part of paths, below which things are removed.
    fn check(self) -> Result<Self, String> {
        if matches!(self.action, Action::Info | Action::Version) {
            return Ok(self);
        }
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() || value.contains('/') || value.starts_with('.') {
                return Err(format!("-{flag} must be a name, not {value:?}"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Flags, String> {
        Flags::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_take_one_dash_or_two_and_either_value_form() {
        let wanted = Flags {
            action: Action::Start,
            namespace: "k8s.io".into(),
            id: "c1".into(),
            address: "/run/c.sock".into(),
            ..Flags::default()
        };
        for text in [
            "-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id c1 -debug start",
            "--namespace=k8s.io -address=/run/c.sock --id c1 start",
        ] {
            assert_eq!(parse(text).unwrap(), wanted, "{text}");
        }
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("-namespace n -id c1").unwrap().action, Action::Serve);
    }

    #[test]
    fn unknown_words_are_errors() {
        assert!(parse("-nonsense 1").unwrap_err().contains("not defined"));
        assert!(parse("restart").unwrap_err().contains("unknown action"));
        assert!(parse("-id").unwrap_err().contains("needs an argument"));
    }

    #[test]
    fn what_is_no_name_is_refused_before_it_is_part_of_a_path() {
        for text in
            ["-id c1", "-namespace n", "-namespace n -id ../c1", "-namespace .. -id c1", "-namespace n -id="]
        {
            for action in ["", "start", "delete"] {
                let refusal = parse(&format!("{text} {action}")).unwrap_err();
                assert!(refusal.contains("must be a name"), "{text} {action}: {refusal}");
            }
        }
    }
}
