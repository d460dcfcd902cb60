// Runs one TensorFlow.js model: batches come in on stdin, predictions go out on stdout.
//
//   node server.mjs <folder of model.json> [names of the outputs to send, else all]
//
// What is spoken, in this machine's byte order (node.py speaks it on the other side):
//   frame  = uint64 length of the rest, body
//   tensor = uint32 dtype (its place in DTYPES), uint32 rank, uint32 sizes[rank], values,
//            zeros up to a multiple of 4 bytes
// The first frame goes out: uint32 status and a text, JSON that describes the model, or an error.
// Then each frame that comes in, one tensor per input, is answered by one: uint32 status and one
// tensor per output to send, or the text of an error. The end of stdin, in whatever way the other
// side ended, is the end of this process.

import { readFileSync, readSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const DTYPES = ["float32", "int32", "bool"];
const ARRAYS = { float32: Float32Array, int32: Int32Array, bool: Uint8Array };
const OK = 0;
const FAILED = 1;
const [STDIN, STDOUT] = [0, 1];
// A read or write of 2 GiB or more is refused by Node.
const MOST_BYTES = 1 << 30;

// stdout carries frames alone. Set before the libraries load, which keep what they find.
console.log = console.info = console.debug = console.error;
const require = createRequire(import.meta.url);
const tf = require("@tensorflow/tfjs");
require("@tensorflow/tfjs-backend-wasm");

// ---- frames ----

// Blocking calls on pipes: they wait for the other side, so that nothing is ever queued here.

let incoming = new Uint8Array(0); // Kept for the next batch; grows to the largest.

function readBytes(length) {
  if (incoming.length < length) incoming = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const count = readSync(STDIN, incoming, done, Math.min(length - done, MOST_BYTES), null);
    if (count === 0) process.exit(0);
    done += count;
  }
  return incoming.subarray(0, length);
}

function readFrame() {
  const length = new BigUint64Array(readBytes(8).slice().buffer)[0];
  return readBytes(Number(length));
}

function writeBytes(bytes) {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(STDOUT, bytes, done, Math.min(bytes.length - done, MOST_BYTES));
  }
}

function writeFrame(status, parts) {
  const length = parts.reduce((total, part) => total + part.byteLength, 4);
  writeBytes(new Uint8Array(new BigUint64Array([BigInt(length)]).buffer));
  for (const part of [new Uint32Array([status]), ...parts]) {
    writeBytes(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  }
}

function writeText(status, text) {
  writeFrame(status, [new TextEncoder().encode(text)]);
}

const padding = (bytes) => (4 - (bytes % 4)) % 4;

// Views of the bytes, not copies: TensorFlow.js copies them into WebAssembly's memory at once.
function decode(bytes) {
  const tensors = [];
  for (let at = 0; at < bytes.length; ) {
    const [dtype, rank] = new Uint32Array(bytes.buffer, at, 2);
    const shape = Array.from(new Uint32Array(bytes.buffer, at + 8, rank));
    at += 8 + 4 * rank;
    const values = new ARRAYS[DTYPES[dtype]](bytes.buffer, at, tf.util.sizeFromShape(shape));
    tensors.push(tf.tensor(values, shape, DTYPES[dtype]));
    at += values.byteLength + padding(values.byteLength);
  }
  return tensors;
}

function encode(tensor) {
  const values = tensor.dataSync();
  return [
    new Uint32Array([DTYPES.indexOf(tensor.dtype), tensor.rank, ...tensor.shape]),
    values,
    new Uint8Array(padding(values.byteLength)),
  ];
}

// ---- the model ----

// Where no memory is left the library would go on at address 0, over data of its own.
function refuseFailedAllocations() {
  const { wasm } = tf.backend();
  wasm._free(wasm._malloc(1)); // Its first call puts the function itself in its place.
  const allocate = wasm._malloc;
  wasm._malloc = (bytes) => {
    // Of a larger number, WebAssembly would see the last 32 bits.
    const address = bytes < 2 ** 32 ? allocate(bytes) : 0;
    if (address === 0 && bytes > 0) {
      throw new Error(
        `WebAssembly's memory, which is at most 4 GiB, has no room for another ${bytes} bytes`,
      );
    }
    return address;
  };
}

// From the files alone: a handler of our own, since the library's would fetch.
function handler(folder, description) {
  const load = (manifest) => {
    const shards = manifest.flatMap((group) => group.paths.map((path) => join(folder, path)));
    const specs = manifest.flatMap((group) => group.weights);
    return [specs, shards.map((shard) => new Uint8Array(readFileSync(shard)).buffer)];
  };
  return { load: () => tf.io.getModelArtifactsForJSON(description, async (m) => load(m)) };
}

// The sizes of a shape, null where any goes; of an unknown shape null.
const sizes = (shape) => shape?.map((size) => (size == null || size < 0 ? null : size)) ?? null;
const plain = (name) => name.replace(/:0$/, "");
const input = (name, { dtype = "unknown", shape }) => ({ name, dtype, shape: sizes(shape) });

// A model: its inputs, the names of its outputs, and `run` from and to lists of tensors.

async function layersModel(folder, description) {
  const model = await tf.loadLayersModel(handler(folder, description));
  if (model instanceof tf.Sequential) model.build(); // Else it has no names before its first call.
  return {
    inputs: model.inputs.map((tensor, index) => input(model.inputNames[index], tensor)),
    outputs: model.outputNames,
    // Not `predict`, which cuts a batch into pieces of 32.
    run: (tensors) => [model.predictOnBatch(tensors)].flat(),
  };
}

async function graphModel(folder, description) {
  const model = await tf.loadGraphModel(handler(folder, description));
  // Names are those of the signature's arguments, or else of the graph's nodes. The converter puts
  // the names of tensors (`image:0`) where it has not found the arguments'. Tables and variables,
  // which are resources, are the library's to fill.
  const { inputs, outputs } = model.modelSignature ?? {};
  const node = (name) => model.inputs.find((one) => one.name === plain(name));
  const takes = inputs
    ? Object.keys(inputs).filter((key) => inputs[key].resourceId == null && node(inputs[key].name))
    : model.inputs.map(({ name }) => name);
  const gives = outputs ? Object.keys(outputs) : model.outputs.map(({ name }) => name);
  const named = (tensors) => Object.fromEntries(takes.map((key, index) => [key, tensors[index]]));
  return {
    inputs: takes.map((key) => input(plain(key), node(inputs?.[key].name ?? key))),
    outputs: gives.map(plain),
    run: (tensors) => [model.execute(named(tensors), gives)].flat(),
    runAsync: async (tensors) => [await model.executeAsync(named(tensors), gives)].flat(),
  };
}

// What `take` makes of the outputs for the inputs that `make` makes; no tensor is left.
async function predict(model, make, take) {
  if (!model.isAsync) {
    try {
      return tf.tidy(() => take(model.run(make())));
    } catch (error) {
      // Control flow, and outputs whose size hangs on values, are for `executeAsync` alone.
      model.isAsync = Boolean(model.runAsync) && /executeAsync/.test(error.message);
      if (!model.isAsync) throw error;
    }
  }
  const inputs = make();
  let outputs = [];
  try {
    outputs = await model.runAsync(inputs);
    return take(outputs);
  } finally {
    tf.dispose([inputs, outputs]);
  }
}

// The outputs of two examples of zeros: an op that is not there shows before the data is read.
// Their first size is null where it is the number of examples.
async function tryOut(model) {
  const unknown = model.outputs.map((name) => ({ name, dtype: "float32", shape: null }));
  const { inputs } = model;
  // The other side refuses such inputs, in its own words.
  if (!inputs.every(({ dtype, shape }) => DTYPES.includes(dtype) && shape?.[0] === null)) {
    return unknown;
  }
  const two = (shape) => [2, ...shape.slice(1).map((size) => size ?? 1)];
  const make = () => inputs.map(({ dtype, shape }) => tf.zeros(two(shape), dtype));
  const take = (tensors) =>
    tensors.map(({ dtype, shape: [rows, ...rest] }, index) => ({
      name: model.outputs[index],
      dtype,
      shape: rows === undefined ? [] : [rows === 2 ? null : rows, ...rest],
    }));
  try {
    return await predict(model, make, take);
  } catch (error) {
    // Where sizes are open, 1 may be too small for the model.
    const guessed = inputs.some(({ shape }) => shape.slice(1).includes(null));
    if (guessed && !isUnavailable(error)) return unknown;
    throw error;
  }
}

const UNKNOWN_OP = /^Unknown op '([^']+)'/;
const UNKNOWN_KERNEL = /Kernel '([^']+)' not registered/;
const isUnavailable = ({ message }) => UNKNOWN_OP.test(message) || UNKNOWN_KERNEL.test(message);

function explain(error) {
  const library = `TensorFlow.js ${tf.version.tfjs}`;
  const op = UNKNOWN_OP.exec(error.message);
  if (op) return `custom op '${op[1]}' is not available in ${library}. Convert without it`;
  const kernel = UNKNOWN_KERNEL.exec(error.message);
  if (kernel) return `op '${kernel[1]}' is not available in the WebAssembly backend of ${library}`;
  return error.message ?? String(error);
}

async function load(folder) {
  await tf.setBackend("wasm");
  refuseFailedAllocations();
  const description = JSON.parse(readFileSync(join(folder, "model.json"), "utf8"));
  const form = description.format === "layers-model" ? layersModel : graphModel;
  return form(folder, description);
}

const [folder, ...wanted] = process.argv.slice(2);
let model;
try {
  model = await load(folder);
  const outputs = await tryOut(model);
  writeText(OK, JSON.stringify({ inputs: model.inputs, outputs }));
} catch (error) {
  writeText(FAILED, explain(error));
  process.exit(0);
}
const isSent = (name) => !wanted.length || wanted.includes(name);
const sent = (tensors) => tensors.filter((_, index) => isSent(model.outputs[index]));
for (;;) {
  const bytes = readFrame();
  try {
    const make = () => decode(bytes);
    writeFrame(OK, await predict(model, make, (tensors) => sent(tensors).flatMap(encode)));
  } catch (error) {
    // A trap leaves WebAssembly's memory as nobody knows: better no prediction than a wrong one.
    if (error instanceof WebAssembly.RuntimeError) {
      console.error(`WebAssembly stopped, as it does when it is out of memory: ${error.message}`);
      process.exit(1);
    }
    writeText(FAILED, explain(error));
  }
}
