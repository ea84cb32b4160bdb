// Worker threads, timers, the thread pool, random numbers, hashes of garbage collected objects.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
if (!isMainThread) {
  let sum = 0;
  for (let i = 0; i < 300000; i++) sum = (sum * 31 + i * workerData) % 1000003;
  const garbage = [];
  for (let i = 0; i < 20000; i++) garbage.push({ i, text: 'x'.repeat(i % 50) });
  parentPort.postMessage(`worker ${workerData} ${sum} ${garbage.length}`);
} else {
  console.log(Date.now(), Math.random(), process.pid, os.hostname(), os.cpus().length, crypto.randomUUID(), process.hrtime.bigint());
  setTimeout(() => console.log('timeout 5', Date.now()), 5);
  setTimeout(() => console.log('timeout 1', performance.now()), 1);
  setImmediate(() => console.log('immediate'));
  fs.readdir('/work/tree', (error, names) => console.log('readdir', names));
  for (let n = 0; n < 6; n++) fs.stat('/work/tree', (error, s) => console.log('stat', n, s.ino, s.mtimeMs));
  crypto.pbkdf2('secret', 'salt', 1000, 16, 'sha256', (error, key) => console.log('pbkdf2', key.toString('hex')));
  crypto.generateKeyPair('ec', { namedCurve: 'P-256' }, (error, key) => console.log('key', key.export({ type: 'spki', format: 'der' }).toString('hex')));
  for (let n = 0; n < 6; n++) {
    const worker = new Worker(__filename, { workerData: n });
    worker.on('message', (text) => console.log(text));
    worker.on('exit', (code) => console.log(`exit ${n} ${code}`));
  }
}
