//! Starting pods that are asked, rather than their kubelet, whether they are ready.

use super::{Inner, KubeTargets};
use crate::kubernetes::workload::{Readiness, Workload};
use crate::kubernetes::{pods, probe};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

impl KubeTargets {
    /// Asks starting pods that have a readiness probe of kind `httpGet`, while calls wait for them.
    pub(super) fn probe(self: &Arc<Self>, inner: &mut Inner, workload: &Arc<Workload>, pods: &[&Pod]) {
        let Readiness::Http(http) = &workload.readiness else {
            return;
        };
        if inner.calls.get(&workload.name).is_none_or(|calls| *calls == 0)
            || pods.iter().any(|pod| pods::is_ready(pod))
        {
            return;
        }
        for pod in pods {
            let uid = pods::uid(pod).to_owned();
            let is_new = pods::may_start(workload, pod) && !inner.proven.contains(&uid);
            let Some(ip) = pods::ip(pod).filter(|_| is_new) else {
                continue;
            };
            if !inner.probing.insert(uid.clone()) {
                continue;
            }
            let (this, http, name) = (Arc::clone(self), http.clone(), workload.name.clone());
            let pod = pod.metadata.name.clone().unwrap_or_default();
            self.tasks.spawn(async move {
                let wanted = || {
                    let pod = this.views.pods.get(&name.namespace, &pod);
                    if pod.is_none_or(|pod| pods::uid(&pod) != uid || pods::is_terminating(&pod)) {
                        return false;
                    }
                    let known = this.lock();
                    known
                        .targets
                        .get(&name)
                        .is_some_and(|target| target.state.borrow().endpoints.is_empty())
                        && known.calls.contains_key(&name)
                };
                let asked = probe::until_ready(ip, &http, wanted);
                let is_ready = this.ending.run_until_cancelled(asked).await.unwrap_or(false);
                let mut inner = this.lock();
                inner.probing.remove(&uid);
                if is_ready {
                    inner.proven.insert(uid);
                }
                drop(inner);
                this.nudged.notify_one();
            });
        }
    }
}
