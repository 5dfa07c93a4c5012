//! An agent without a kernel: the same transitions on maps in memory, which refuse and are left behind as a test wants it.

use std::collections::BTreeMap;

use super::{
    op::{Op, Trouble},
    *,
};
use crate::{
    model::Scope as Backends,
    reconcile::{Ground, Plan, collect, converge, enact, plan::tests::moments},
    source::{
        Config, FileService, Good, Runtime, Sources, config,
        decl::{BackendDecl, ServiceDecl},
        merge::NO_CLUSTER,
        names::NO_NAMES,
        runtime::RuntimeDrain,
    },
};

/// Maps in memory.
#[derive(Default)]
struct Maps {
    kernel: Actual,
    mirror: Actual,
    trouble: Vec<usize>,
    dies: bool,
    dead: bool,
    change: Option<moments::Change>,
}

impl Ground for Maps {
    type Error = &'static str;

    fn look<R>(&self, see: impl FnOnce(&Actual) -> R) -> R {
        see(&self.mirror)
    }

    fn apply(&mut self, plan: Plan) -> Result<(), Self::Error> {
        if self.dead {
            return Err("dead");
        }
        let mut left = self.trouble.pop();
        for step in &plan.steps {
            if left == Some(0) {
                self.dead = self.dies;
                return Err("refused");
            }
            left = left.map(|left| left - 1);
            self.kernel.apply(step);
            self.mirror.apply(step);
            if let Some(change) = &self.change {
                change.consistent(&self.kernel, step);
            }
        }
        Ok(())
    }
}

/// See the module.
pub struct Machine {
    file: Config,
    good: Good,
    runtime: Runtime,
    own: OwnAddresses,
    known: Known,
    maps: Maps,
    /// The kernel refused, and the way back too: what the maps hold is still on the way.
    halfway: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            file: config::parse("", "f").unwrap(),
            good: Good::default(),
            runtime: Runtime::default(),
            own: OwnAddresses::new(),
            known: Known::default(),
            maps: Maps::default(),
            halfway: false,
        }
    }
}

fn name(n: u8) -> String {
    if n < 5 { format!("s{n}") } else { format!("c{}", n - 5) }
}

fn backend(b: u8) -> String {
    format!("10.0.0.{}", b + 1)
}

/// A service of the file, spoilt or not.
fn read((mut spec, flaw): (ServiceSpec, u8)) -> FileService {
    let name = spec.name.clone();
    let text = format!("{flaw} {spec:?}").into();
    match flaw {
        0 => return FileService { name, text, line: 1, spec: Err("it can't be read".into()) },
        // In the way of another.
        1 => spec.frontends[0].addresses = vec!["10.96.0.1".parse().unwrap()],
        2 => spec.frontends[0].addresses = vec!["10.98.0.1".parse().unwrap()],
        3 => {
            let vip = make_backend("s", "10.96.0.2", None, None, false, Origin::File).unwrap();
            spec.backends.insert(vip.name(), vip);
        }
        4 => spec.slow_start = Some(Duration::from_secs(60)),
        5 => spec.frontends[0].scope = Backends::Local,
        _ => {}
    }
    // What by itself isn't valid hasn't been read.
    let spec = spec.validate().map(|()| Arc::new(spec)).map_err(|e| e.to_string());
    FileService { name, text, line: 1, spec }
}

impl Machine {
    pub fn run(&mut self, op: Op, trouble: Trouble) {
        self.maps.dies = matches!(trouble, Trouble::Dies(_));
        self.maps.trouble = match trouble {
            Trouble::None => vec![],
            Trouble::Refuses(at) | Trouble::Dies(at) => vec![at],
            Trouble::RefusesTwice(at, back) => vec![back, at],
        };
        // What no trouble comes of is another's.
        let before = (self.known.clone(), self.runtime.clone(), self.file.clone());
        if let Some(failed) = self.happen(op) {
            assert!(self.known == before.0, "a change that failed has left something: {failed}");
            (self.runtime, self.file) = (before.1, before.2);
        }
        self.maps.trouble.clear();
        if self.maps.dead {
            self.restart();
        }
        if self.halfway {
            let mut maps = std::mem::take(&mut self.maps);
            maps.change = None;
            converge(&mut maps, &self.known, self.now()).expect("the kernel takes it again");
            self.maps = maps;
            self.halfway = false;
        }
        self.check();
    }

    fn now(&self) -> Instant {
        // Weights of slow starts depend on it: the same for what is done and for the look at it.
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            file: &self.file.services,
            good: &self.good,
            runtime: &self.runtime,
            cluster: NO_CLUSTER,
            names: NO_NAMES,
        }
    }

    /// Nothing is said if it went well, or wasn't to be.
    fn happen(&mut self, op: Op) -> Option<String> {
        let mut runtime = self.runtime.clone();
        match op {
            Op::Reload(services) => return self.reload(services.into_iter().map(read).collect()),
            Op::Kill => {
                self.maps.dead = true;
                return None;
            }
            Op::Time => return self.enter(Input::Time),
            Op::Node(count) => {
                let all = ["192.0.2.1", "192.0.2.2", "192.0.2.9", "2001:db8::1"];
                let own: OwnAddresses = all.iter().take(count).map(|a| a.parse().unwrap()).collect();
                let snat = SnatSpec { addresses: own.iter().copied().collect(), ..SnatSpec::default() };
                let all = self.sources().all(&mut Vec::new());
                let failed = self.enter(Input::Declared { all: &all, own: &own, sources: Some(&snat) });
                if failed.is_none() {
                    self.own = own;
                }
                return failed;
            }
            Op::Collect(pin) => {
                let pinned = |id: lb_common::abi::BackendId| (id.0 ^ pin).is_multiple_of(3);
                let plan = collect(&self.known.desired, &self.maps.mirror, pinned);
                self.maps.change = None;
                // What is freed and what isn't yet is right either way.
                let _ = self.maps.apply(plan);
                return None;
            }
            Op::Health(service, b, healthy) => {
                let (service, backend) = (name(service), backend(b));
                return self.enter(Input::Health { service: &service, backend: &backend, healthy });
            }
            Op::AddService(n, vip) => {
                let decl = ServiceDecl {
                    vip: Some(
                        ["10.96.0.1", "10.96.0.2", "10.98.0.1", "10.98.0.2", "10.98.0.3", "0.0.0.0"]
                            [usize::from(vip)]
                        .into(),
                    ),
                    ports: vec!["80/tcp".into()],
                    ..ServiceDecl::default()
                };
                runtime.services.insert(name(n + 5), decl);
                return self.ask(&name(n + 5), runtime);
            }
            Op::RemoveService(n) => runtime.forget_service(&name(n)),
            Op::AddBackend(n, b, weight) => {
                if !self.known.desired.services().contains_key(&name(n)) {
                    return None;
                }
                let added =
                    BackendDecl { weight: Some(weight.into()), local: b % 2 == 0, ..BackendDecl::default() };
                runtime.backends.entry(name(n)).or_default().insert(backend(b), added);
            }
            Op::RemoveBackend(n, b) => runtime.forget_backend(&name(n), &backend(b)),
            Op::Drain(n, b) => {
                let drain = RuntimeDrain::begin(None);
                runtime.drains.entry(name(n)).or_default().insert(backend(b), drain);
            }
            Op::Undrain(n, b) => {
                runtime.drains.entry(name(n)).or_default().remove(&backend(b));
                runtime.drains.retain(|_, of| !of.is_empty());
            }
        }
        let n = match op {
            Op::RemoveService(n)
            | Op::AddBackend(n, ..)
            | Op::RemoveBackend(n, _)
            | Op::Drain(n, _)
            | Op::Undrain(n, _) => n,
            _ => return None,
        };
        self.ask(&name(n), runtime)
    }

    fn ask(&mut self, service: &str, runtime: Runtime) -> Option<String> {
        let sources = Sources {
            file: &self.file.services,
            good: &self.good,
            runtime: &runtime,
            cluster: NO_CLUSTER,
            names: NO_NAMES,
        };
        let declared = sources.one(service, &mut Vec::new());
        let failed = self.enter(Input::Asked { name: service, declared: declared.as_ref() });
        if failed.is_none() {
            self.runtime = runtime;
            if !self.known.rejected.is_empty() {
                let (all, own) = (self.sources().all(&mut Vec::new()), self.own.clone());
                // On its own: what was asked for is in force.
                self.maps.trouble.clear();
                assert_eq!(self.enter(Input::Declared { all: &all, own: &own, sources: None }), None);
            }
        }
        failed
    }

    fn reload(&mut self, services: Vec<FileService>) -> Option<String> {
        let before = self.file.services.clone();
        self.file.services = Arc::new(services);
        let old: BTreeMap<&str, &FileService> = before.iter().map(|s| (s.name.as_str(), s)).collect();
        let now: BTreeMap<&str, &FileService> =
            self.file.services.iter().map(|s| (s.name.as_str(), s)).collect();
        let differs = |s: &&&str| old.get(**s).map(|s| &s.text) != now.get(**s).map(|s| &s.text);
        let changed: Vec<Declared> =
            now.keys().filter(differs).filter_map(|s| self.sources().one(s, &mut Vec::new())).collect();
        let removed: Vec<&str> = old.keys().filter(|s| !now.contains_key(**s)).copied().collect();
        let all = self.sources().all(&mut Vec::new());
        let few = Input::Some { changed: &changed, removed: &removed };
        let whole = Input::Declared { all: &all, own: &self.own.clone(), sources: None };
        let alone = transition(&self.known, &self.maps.mirror, few, self.now());
        let failed = match alone {
            Ok(alone) => {
                let together = transition(&self.known, &self.maps.mirror, whole, self.now()).unwrap();
                assert_eq!(alone.next.desired, together.next.desired, "a few alone, or all: the same");
                self.enter(few)
            }
            Err(Refused::NeedsAll) => self.enter(whole),
            Err(other) => panic!("{other}"),
        };
        if failed.is_none() {
            let rejected = self.known.rejected.clone();
            let bad = |name: &str| rejected.iter().any(|r| r.service == name && r.backend.is_none());
            self.good.follow(&self.file, |name| !bad(name));
        }
        failed
    }

    fn enter(&mut self, input: Input<'_>) -> Option<String> {
        let now = self.now();
        let step = match transition(&self.known, &self.maps.mirror, input, now) {
            Ok(step) => step,
            Err(refused) => return Some(refused.to_string()),
        };
        let states = [(&*self.known.desired, &*self.known.own), (&*step.next.desired, &*step.next.own)];
        self.maps.change = Some(moments::Change::new(HashSet::new(), states));
        match enact(&mut self.maps, &self.known.clone(), step, |_| Ok(()), now) {
            Ok(next) => {
                self.known = next;
                None
            }
            Err(failure) => {
                self.halfway = failure.halfway.is_some() && !self.maps.dead;
                Some(failure.error)
            }
        }
    }

    /// Another agent finds what this one has left.
    fn restart(&mut self) {
        let mut maps = std::mem::take(&mut self.maps);
        (maps.dead, maps.dies, maps.change) = (false, false, None);
        maps.kernel.forget_unread();
        maps.mirror = maps.kernel.clone();
        self.maps = maps;
        self.halfway = false;
        let before = std::mem::take(&mut self.known);
        let (all, own) = (self.sources().all(&mut Vec::new()), before.own.clone());
        let input = Input::Declared { all: &all, own: &own, sources: before.sources.as_ref() };
        let step = transition(&self.known, &self.maps.mirror, input, self.now()).unwrap();
        for step in &step.plan.steps {
            self.maps.kernel.apply(step);
            self.maps.mirror.apply(step);
        }
        self.known = step.next;
    }

    /// What is known is what the maps hold, and as much of what is declared as goes together.
    fn check(&self) {
        assert_eq!(self.maps.kernel, self.maps.mirror);
        let rest = plan(self.known.goal(self.now()), &self.maps.mirror, Scope::All).unwrap();
        assert!(rest.steps.is_empty(), "not in force: {:?}", rest.steps);
        let desired = &self.known.desired;
        let refused: HashSet<&str> =
            self.known.rejected.iter().filter(|r| r.backend.is_none()).map(|r| r.service.as_str()).collect();
        let all = self.sources().all(&mut Vec::new());
        for declared in &all {
            let there = desired.services().get(&declared.name);
            let as_declared = declared.spec.as_ref().is_ok_and(|spec| Some(spec) == there);
            assert_eq!(as_declared, !refused.contains(declared.name.as_str()), "{}", declared.name);
            let last = there.is_none_or(|there| as_declared || declared.good.as_ref() == Some(there));
            assert!(last, "{}: neither what is declared nor what was good", declared.name);
        }
        let declared: HashSet<&str> = all.iter().map(|d| d.name.as_str()).collect();
        assert!(desired.services().keys().all(|name| declared.contains(name)));
    }

    /// In the end everything is where it should be, and nothing is in force that could be better.
    pub fn settled(&self) {
        self.check();
        for rejection in self.known.rejected.iter().filter(|r| r.backend.is_none()) {
            let all = self.sources().all(&mut Vec::new());
            let Some(Ok(spec)) = all.iter().find(|d| d.name == rejection.service).map(|d| &d.spec) else {
                continue;
            };
            let mut desired = Desired::clone(&self.known.desired);
            let fits = desired.replace(&rejection.service, Some(spec.clone()), &self.own);
            assert!(fits.is_err(), "{rejection}, and it would fit");
        }
    }
}
