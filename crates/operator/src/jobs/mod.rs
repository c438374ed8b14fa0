//! Data phases as Jobs of a cluster: the executor that makes and watches them, and the lease by which a worker is heard of.
