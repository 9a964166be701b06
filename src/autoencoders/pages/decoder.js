// Some of torch's operators on arrays of numbers, as many as the decoders of this project are made of. A value is
// { shape, data }, and its first axis is a batch of one. The program is what evaluation/browser.py wrote.

const sizeOf = shape => shape.reduce((a, b) => a * b, 1);

function stridesOf(shape) {
  const strides = new Array(shape.length);
  for (let axis = shape.length - 1, stride = 1; axis >= 0; axis--) { strides[axis] = stride; stride *= shape[axis]; }
  return strides;
}

// The numbers of a value where it is repeated to fill a shape, or of a plain number.
function spread(value, shape) {
  const size = sizeOf(shape);
  if (typeof value === "number") return new Float32Array(size).fill(value);
  if (value.data.length === size) return value.data;
  const own = stridesOf(value.shape), lead = shape.length - value.shape.length;
  return gathered(value.data, shape, shape.map((_, axis) => axis < lead || value.shape[axis - lead] === 1 ? 0 : own[axis - lead]), 0);
}

// Numbers at a regular grid of places: of a shape, with a stride for each of its axes.
function gathered(data, shape, strides, start) {
  const out = new Float32Array(sizeOf(shape)), at = new Array(shape.length).fill(0);
  for (let i = 0, place = start; i < out.length; i++) {
    out[i] = data[place];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      place += strides[axis];
      if (++at[axis] < shape[axis]) break;
      place -= at[axis] * strides[axis];
      at[axis] = 0;
    }
  }
  return out;
}

const each = f => (shape, x) => x.data.map(v => f(v));
const both = f => (shape, x, y) => {
  const a = spread(x, shape), b = spread(y, shape), out = new Float32Array(a.length);
  for (let i = 0; i < out.length; i++) out[i] = f(a[i], b[i]);
  return out;
};

// For each place that is left of a value without some axes, what f makes of the numbers along them.
const along = f => (shape, x, axes) => {
  const rank = x.shape.length, gone = new Set((axes === null || axes.length === 0 ? [...x.shape.keys()] : [axes].flat()).map(axis => (axis + rank) % rank));
  const kept = [...x.shape.keys()].filter(axis => !gone.has(axis)), strides = stridesOf(x.shape);
  const order = [...kept, ...gone], moved = gathered(x.data, order.map(a => x.shape[a]), order.map(a => strides[a]), 0);
  const count = sizeOf([...gone].map(axis => x.shape[axis])), out = new Float32Array(moved.length / count);
  for (let i = 0; i < out.length; i++) out[i] = f(moved.subarray(i * count, (i + 1) * count));
  return out;
};
const largest = row => row.reduce((a, b) => Math.max(a, b));
const total = row => row.reduce((a, b) => a + b, 0);

// Changes rows of so many numbers that lie side by side; w and b are of one number each, or of one for each channel.
function normalised(x, count, eps, scale) {
  const out = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += count) {
    const row = x.subarray(start, start + count), mean = total(row) / count;
    let squares = 0;
    for (const v of row) squares += (v - mean) ** 2;
    const by = 1 / Math.sqrt(squares / count + eps);
    for (let i = 0; i < count; i++) out[start + i] = scale((row[i] - mean) * by, start + i);
  }
  return out;
}

function softmaxed(x, dim, last) {  // along one axis
  const axis = (dim + x.shape.length) % x.shape.length, stride = stridesOf(x.shape)[axis], size = x.shape[axis];
  const out = new Float32Array(x.data.length);
  for (let i = 0; i < out.length; i++) {
    if (Math.floor(i / stride) % size) continue;
    let high = -Infinity, sum = 0;
    for (let k = 0; k < size; k++) high = Math.max(high, x.data[i + k * stride]);
    for (let k = 0; k < size; k++) sum += Math.exp(x.data[i + k * stride] - high);
    for (let k = 0; k < size; k++) out[i + k * stride] = last(x.data[i + k * stride] - high, sum);
  }
  return out;
}

function erf(x) {  // Abramowitz & Stegun 7.1.26, to 1.5e-7
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const y = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-x * x);
  return x < 0 ? -y : y;
}

const sigmoid = v => 1 / (1 + Math.exp(-v));

const operators = {
  same: (shape, x) => x.data,
  linear(shape, x, w, b) {
    const [outs, ins] = w.shape, out = new Float32Array(sizeOf(shape));
    for (let row = 0; row < out.length / outs; row++) {
      for (let o = 0; o < outs; o++) {
        let sum = b ? b.data[o] : 0;
        for (let i = 0; i < ins; i++) sum += w.data[o * ins + i] * x.data[row * ins + i];
        out[row * outs + o] = sum;
      }
    }
    return out;
  },
  conv2d(shape, x, w, b, stride, padding, dilation, groups) {
    const [, outs, high, wide] = shape, [, ins, h, width] = x.shape, [, each, kh, kw] = w.shape;
    const out = new Float32Array(sizeOf(shape)), area = high * wide;
    for (let o = 0; o < outs; o++) {
      if (b) out.fill(b.data[o], o * area, (o + 1) * area);
      const first = Math.floor(o / (outs / groups)) * each;
      for (let i = 0; i < each; i++) for (let ky = 0; ky < kh; ky++) for (let kx = 0; kx < kw; kx++) {
        const weight = w.data[((o * each + i) * kh + ky) * kw + kx];
        for (let y = 0; y < high; y++) {
          const from = y * stride[0] - padding[0] + ky * dilation[0];
          if (from < 0 || from >= h) continue;
          const row = ((first + i) * h + from) * width, to = o * area + y * wide;
          for (let column = 0; column < wide; column++) {
            const place = column * stride[1] - padding[1] + kx * dilation[1];
            if (place >= 0 && place < width) out[to + column] += weight * x.data[row + place];
          }
        }
      }
    }
    return out;
  },
  conv_transpose2d(shape, x, w, b, stride, padding, outputPadding, groups, dilation) {
    const [, outs, high, wide] = shape, [, ins, h, width] = x.shape, [, each, kh, kw] = w.shape;
    const out = new Float32Array(sizeOf(shape)), area = high * wide;
    if (b) for (let o = 0; o < outs; o++) out.fill(b.data[o], o * area, (o + 1) * area);
    for (let i = 0; i < ins; i++) {
      const first = Math.floor(i / (ins / groups)) * each;
      for (let o = 0; o < each; o++) for (let ky = 0; ky < kh; ky++) for (let kx = 0; kx < kw; kx++) {
        const weight = w.data[((i * each + o) * kh + ky) * kw + kx];
        for (let y = 0; y < h; y++) {
          const to = y * stride[0] - padding[0] + ky * dilation[0];
          if (to < 0 || to >= high) continue;
          const row = (first + o) * area + to * wide, from = (i * h + y) * width;
          for (let column = 0; column < width; column++) {
            const place = column * stride[1] - padding[1] + kx * dilation[1];
            if (place >= 0 && place < wide) out[row + place] += weight * x.data[from + column];
          }
        }
      }
    }
    return out;
  },
  group_norm(shape, x, groups, w, b, eps) {
    const channels = shape[1], area = x.data.length / channels;
    const channel = i => Math.floor(i / area);
    return normalised(x.data, x.data.length / groups, eps, (v, i) => v * (w ? w.data[channel(i)] : 1) + (b ? b.data[channel(i)] : 0));
  },
  layer_norm(shape, x, over, w, b, eps) {
    const count = sizeOf(over);
    return normalised(x.data, count, eps, (v, i) => v * (w ? w.data[i % count] : 1) + (b ? b.data[i % count] : 0));
  },
  batch_norm(shape, x, w, b, mean, variance, training, momentum, eps) {
    const area = x.data.length / shape[1];
    return x.data.map((v, i) => {
      const c = Math.floor(i / area);
      return (v - mean.data[c]) / Math.sqrt(variance.data[c] + eps) * (w ? w.data[c] : 1) + (b ? b.data[c] : 0);
    });
  },
  pixel_shuffle(shape, x, side) {
    const [, channels, high, wide] = shape, h = high / side, width = wide / side, out = new Float32Array(sizeOf(shape));
    for (let c = 0, i = 0; c < channels; c++) for (let y = 0; y < high; y++) for (let column = 0; column < wide; column++, i++) {
      const from = (c * side + y % side) * side + column % side;
      out[i] = x.data[(from * h + Math.floor(y / side)) * width + Math.floor(column / side)];
    }
    return out;
  },
  upsample_nearest2d(shape, x) {
    const [, channels, high, wide] = shape, [, , h, width] = x.shape, out = new Float32Array(sizeOf(shape));
    for (let c = 0, i = 0; c < channels; c++) for (let y = 0; y < high; y++) for (let column = 0; column < wide; column++, i++) {
      out[i] = x.data[(c * h + Math.floor(y * h / high)) * width + Math.floor(column * width / wide)];
    }
    return out;
  },
  matmul(shape, x, y) {
    const [m, k] = x.shape.slice(-2), n = y.shape.at(-1), lead = shape.slice(0, -2);
    const a = spread(x, [...lead, m, k]), b = spread(y, [...lead, k, n]), out = new Float32Array(sizeOf(shape));
    for (let batch = 0; batch < sizeOf(lead); batch++) for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) {
      const left = a[(batch * m + i) * k + l];
      for (let j = 0; j < n; j++) out[(batch * m + i) * n + j] += left * b[(batch * k + l) * n + j];
    }
    return out;
  },
  softmax: (shape, x, dim) => softmaxed(x, dim, (v, sum) => Math.exp(v) / sum),
  log_softmax: (shape, x, dim) => softmaxed(x, dim, (v, sum) => v - Math.log(sum)),
  sum: along(total),
  mean: along(row => total(row) / row.length),
  amax: along(largest),
  amin: along(row => -largest(row.map(v => -v))),
  permute(shape, x, order) {
    const strides = stridesOf(x.shape);
    return gathered(x.data, shape, order.map(axis => strides[(axis + shape.length) % shape.length]), 0);
  },
  slice(shape, x, dim, start, end, step) {
    const axis = (dim + shape.length) % shape.length, strides = stridesOf(x.shape), size = x.shape[axis];
    const first = Math.min(size, start === null ? 0 : start < 0 ? Math.max(0, start + size) : start);
    return gathered(x.data, shape, strides.map((stride, a) => a === axis ? stride * step : stride), first * strides[axis]);
  },
  select(shape, x, dim, index) {
    const rank = x.shape.length, axis = (dim + rank) % rank, strides = stridesOf(x.shape);
    return gathered(x.data, shape, strides.filter((_, a) => a !== axis), (index < 0 ? index + x.shape[axis] : index) * strides[axis]);
  },
  cat(shape, parts, dim) {
    const axis = (dim + shape.length) % shape.length, out = new Float32Array(sizeOf(shape)), rows = sizeOf(shape.slice(0, axis));
    const width = out.length / rows;
    let start = 0;
    for (const part of parts) {
      const own = part.data.length / rows;
      for (let row = 0; row < rows; row++) out.set(part.data.subarray(row * own, (row + 1) * own), row * width + start);
      start += own;
    }
    return out;
  },
  expand: (shape, x) => spread(x, shape),
  full_like: (shape, x, value) => new Float32Array(sizeOf(shape)).fill(value),
  where(shape, condition, x, y) {
    const [c, a, b] = [condition, x, y].map(value => spread(value, shape));
    return c.map((v, i) => v ? a[i] : b[i]);
  },
  clamp: (shape, x, low, high) => x.data.map(v => Math.min(high ?? Infinity, Math.max(low ?? -Infinity, v))),
  hardtanh: (shape, x, low, high) => x.data.map(v => Math.min(high, Math.max(low, v))),
  leaky_relu: (shape, x, slope) => x.data.map(v => v < 0 ? slope * v : v),
  elu: (shape, x, alpha) => x.data.map(v => v < 0 ? alpha * Math.expm1(v) : v),
  softplus: (shape, x, beta) => x.data.map(v => (Math.max(0, beta * v) + Math.log1p(Math.exp(-Math.abs(beta * v)))) / beta),
  gelu: (shape, x, kind) => x.data.map(v => kind === "tanh"
    ? 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))) : 0.5 * v * (1 + erf(v / Math.SQRT2))),
  sigmoid: each(sigmoid),
  silu: each(v => v * sigmoid(v)),
  relu: each(v => Math.max(0, v)),
  tanh: each(Math.tanh),
  exp: each(Math.exp),
  log: each(Math.log),
  sqrt: each(Math.sqrt),
  abs: each(Math.abs),
  neg: each(v => -v),
  reciprocal: each(v => 1 / v),
  add: (shape, x, y, alpha) => both((a, b) => a + (alpha ?? 1) * b)(shape, x, y),
  sub: (shape, x, y, alpha) => both((a, b) => a - (alpha ?? 1) * b)(shape, x, y),
  rsub: (shape, x, y, alpha) => both((a, b) => b - (alpha ?? 1) * a)(shape, x, y),
  mul: both((a, b) => a * b),
  div: both((a, b) => a / b),
  pow: both((a, b) => a ** b),
  maximum: both(Math.max),
  minimum: both(Math.min),
  gt: both((a, b) => +(a > b)),
  ge: both((a, b) => +(a >= b)),
  lt: both((a, b) => +(a < b)),
  le: both((a, b) => +(a <= b)),
};

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
}

// Half precision to single.
function halvesOf(base64) {
  const bits = new Uint16Array(bytesOf(base64).buffer), out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = bits[i] & 0x8000 ? -1 : 1, power = bits[i] >> 10 & 31, part = bits[i] & 1023;
    out[i] = sign * (power ? 2 ** (power - 15) * (1 + part / 1024) : 2 ** -24 * part);
  }
  return out;
}

// A program as a function of a code, an array of numbers, that gives an image's numbers (C, H, W).
function decoderOf(program) {
  const halves = halvesOf(program.halves);
  let used = 0;
  const known = program.steps.map(step => {
    if (step.op !== "weight") return null;
    const size = sizeOf(step.shape);
    if (step.data) return { shape: step.shape, data: Float32Array.from(step.data) };
    used += size;
    return { shape: step.shape, data: halves.subarray(used - size, used) };
  });
  return code => {
    const values = [...known];
    const argument = some => Array.isArray(some) ? some.map(argument) : some && typeof some === "object" ? values[some.value] : some;
    program.steps.forEach((step, index) => {
      if (step.op === "input") values[index] = { shape: [1, code.length], data: Float32Array.from(code) };
      else if (step.op !== "weight") {
        values[index] = { shape: step.shape, data: operators[step.op](step.shape, ...step.args.map(argument)) };
      }
    });
    return values[program.output].data;
  };
}
