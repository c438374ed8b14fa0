//! How fast the store is beside its server on this machine:
//! `cargo test --release -p vmferry-staging --lib http::tests::speed -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

const MIB: usize = 1 << 20;
const PART: usize = 8 * MIB;
const PARTS: u32 = 256;

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    // utime and stime, in hundredths of a second. proc(5).
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Which way the bytes go.
#[derive(Debug, Clone)]
enum Way {
    Up(UploadId),
    Down(String),
}

fn key() -> ObjectKey {
    "speed/disk".parse().unwrap()
}

async fn move_part(store: &HttpStore, way: &Way, number: u32, pieces: &Arc<[Buf]>) {
    let offset = u64::from(number) * PART as u64;
    match way {
        Way::Up(upload) => {
            let body = PartBody::held(Arc::clone(pieces));
            store.put_part(&key(), upload, number, offset, body).await.unwrap();
        }
        Way::Down(version) => {
            let bufs = (0..PART / MIB).map(|_| Buf::alone(MIB)).collect();
            store.read(&key(), version, offset, bufs).await.unwrap();
        }
    }
}

/// Moves every part, so many at once, and tells how fast that was.
async fn measure(name: &str, store: &Arc<HttpStore>, way: &Way, at_once: u32, pieces: &Arc<[Buf]>) {
    let (start, before) = (Instant::now(), cpu());
    let mut lanes = Vec::new();
    for lane in 0..at_once {
        let (store, way, pieces) = (Arc::clone(store), way.clone(), Arc::clone(pieces));
        lanes.push(tokio::spawn(async move {
            for number in (lane..PARTS).step_by(at_once as usize) {
                move_part(&store, &way, number, &pieces).await;
            }
        }));
    }
    for lane in lanes {
        lane.await.unwrap();
    }
    let (mib, seconds) = (f64::from(PARTS) * (PART / MIB) as f64, start.elapsed().as_secs_f64());
    let way = if matches!(way, Way::Up(_)) { "up" } else { "down" };
    let cpu = (cpu() - before) / mib * 1024.0;
    println!(
        "{name} {way}, {at_once} at once: {:.0} MiB/s, {cpu:.2} CPU-s/GiB",
        mib / seconds
    );
}

async fn speed(name: &str, store: HttpStore) {
    let store = Arc::new(store);
    let pieces: Arc<[Buf]> = (0..PART / MIB).map(|n| Buf::copy_of(&vec![n as u8; MIB])).collect();
    let len = u64::from(PARTS) * PART as u64;
    for at_once in [1, 2, 4] {
        let upload = store.begin(&key(), len, PART as u64).await.unwrap();
        measure(name, &store, &Way::Up(upload.clone()), at_once, &pieces).await;
        let tag = String::new();
        let parts: Vec<Part> = (0..PARTS)
            .map(|number| Part {
                number,
                tag: tag.clone(),
            })
            .collect();
        let meta = store.complete(&key(), &upload, len, &parts).await.unwrap();
        measure(name, &store, &Way::Down(meta.version), at_once, &pieces).await;
        store.delete(&key()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn of_nginx_and_apache() {
    let disk = Some(3 << 30);
    let nginx = Nginx::with(&NginxSpec {
        disk,
        ..NginxSpec::default()
    });
    speed("nginx", store_at(&nginx.address(), Credentials::None)).await;
    drop(nginx);
    let apache = Apache::with(&ApacheSpec {
        disk,
        ..ApacheSpec::default()
    });
    speed("Apache", store_at(&apache.address(), Credentials::None)).await;
}
