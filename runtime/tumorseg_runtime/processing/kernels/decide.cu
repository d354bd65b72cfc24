// Decision at the image's own size: logits -> one bit per pixel and class, and how many lie close to another decision
// (tumorseg_runtime/processing/decide_cuda.py). With `exclusive` a pixel belongs to the class of the largest logit above
// 0, of equal ones to the first; else to each class whose logit reaches the threshold. The CPU resizes by floats whose order of operations is not
// fixed; a pixel whose outcome hangs on that order is counted as unsure, and the host decides its image. No header is
// needed. Host and kernel agree on these layouts by decide_cuda.py: OUTLINE, BLEND, FOUND.

typedef unsigned char Byte;
typedef unsigned int Word;

struct Blend {  // one output column or row: two source samples and their weights
  int first, second;
  float near, far;
};

struct Outline {  // what is decided for one image
  int height, width;    // its own size
  int columns, rows;    // where the blends of its columns and rows begin
  unsigned long long word;  // where its bits begin, in words
  float rounding;       // of a resized logit, relative to the largest of its samples; 0 where nothing is resized
  int reserved;
};

struct Found {  // of one image, zero before
  Word broken;  // 1 where a logit is not finite; of masks, how many say that none was decided
  Word unsure;  // decisions that hang on rounding; of masks, how many are neither 0 nor 1
  Word close;   // decisions whose logits lie within the band of another
};

static_assert(sizeof(Blend) == 16 && sizeof(Outline) == 32 && sizeof(Found) == 12, "the host packs these");

__device__ __forceinline__ float magnitude(float value) { return value < 0.0f ? -value : value; }
__device__ __forceinline__ float larger(float one, float other) { return one > other ? one : other; }

__device__ __forceinline__ float as_float(int bits) {  // the host packs integers
  union { int bits; float value; } both = {bits};
  return both.value;
}

struct Sample {  // a resized logit, and the largest magnitude that it was made of
  float value, largest;
};

__device__ __forceinline__ Sample resized(const float* plane, int width, const Blend& x, const Blend& y) {
  const float *upper = plane + y.first * width, *lower = plane + y.second * width;
  const float a = upper[x.first], b = upper[x.second], c = lower[x.first], d = lower[x.second];
  return {(a * x.near + b * x.far) * y.near + (c * x.near + d * x.far) * y.far,
          larger(larger(magnitude(a), magnitude(b)), larger(magnitude(c), magnitude(d)))};
}

__device__ __forceinline__ unsigned short half_of(float value) {  // half to even; beyond its range the largest half
  union { float value; Word bits; } both = {value};
  const Word sign = both.bits >> 16 & 0x8000u, rest = both.bits & 0x7fffffffu;
  if (rest >= 0x477ff000u) return sign | 0x7bffu;
  if (rest >= 0x38800000u) return sign | ((rest + 0xfffu + (rest >> 13 & 1u) - 0x38000000u) >> 13);
  both.bits = rest;  // subnormal: counted in units of 2^-24, those of a float from 0.5 to 1
  both.value += 0.5f;
  return sign | (both.bits - 0x3f000000u);
}

extern "C" __global__ void to_half(const float* logits, unsigned short* halves, int values) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < values; i += gridDim.x * blockDim.x)
    halves[i] = half_of(logits[i]);
}

// The masks of a deploy form, bytes of 0 and 1, one bit each; what is neither is counted, 255 apart as a decision that
// was not made. blockIdx.y is the image.
extern "C" __global__ void pack(const Byte* masks, Found* found, Word* bits, int values) {
  const int step = gridDim.x * blockDim.x, start = blockIdx.x * blockDim.x + threadIdx.x, words = (values + 31) / 32;
  const Byte* source = masks + (unsigned long long)blockIdx.y * values;
  Word undecided = 0, others = 0;
  for (int word = start; word < words; word += step) {
    Word set = 0;
    for (int bit = 0; bit < 32 && word * 32 + bit < values; bit++) {
      const Byte value = source[word * 32 + bit];
      if (value == 1) set |= 1u << bit;
      if (value == 255) undecided++;
      else if (value > 1) others++;
    }
    bits[(unsigned long long)blockIdx.y * words + word] = set;
  }
  if (undecided) atomicAdd(&found[blockIdx.y].broken, undecided);
  if (others) atomicAdd(&found[blockIdx.y].unsure, others);
}

// blockIdx.y is the image; the blocks of x share its words. A band below 0 counts nothing.
extern "C" __global__ void decide(const float* logits, const Outline* outlines, const Blend* blends, Found* found,
                                  Word* bits, int classes, int height, int width, int threshold_bits, int band_bits,
                                  int exclusive) {
  const float threshold = as_float(threshold_bits), band = as_float(band_bits);
  const int step = gridDim.x * blockDim.x, start = blockIdx.x * blockDim.x + threadIdx.x;
  const Outline outline = outlines[blockIdx.y];
  const int plane = height * width, values = classes * plane;
  const float* source = logits + (unsigned long long)blockIdx.y * values;
  Found* mine = found + blockIdx.y;
  for (int i = start; i < values; i += step)
    if (!(source[i] - source[i] == 0.0f)) mine->broken = 1;  // infinity or not a number
  const int own = outline.height * outline.width, decisions = classes * own, words = (decisions + 31) / 32;
  Word unsure = 0, close = 0;
  for (int word = start; word < words; word += step) {
    Word set = 0;
    for (int bit = 0; bit < 32 && word * 32 + bit < decisions; bit++) {
      const int at = word * 32 + bit, pixel = at % own;
      const Blend x = blends[outline.columns + pixel % outline.width];
      const Blend y = blends[outline.rows + pixel / outline.width];
      const int klass = at / own;
      const Sample own_sample = resized(source + klass * plane, width, x, y);
      const float value = own_sample.value;
      float largest = own_sample.largest, signed_distance = value - threshold;
      int inside = value >= threshold;
      if (exclusive) {
        inside = value > 0.0f;
        signed_distance = value;
        for (int other = 0; other < classes; other++) {
          if (other == klass) continue;
          const Sample rival = resized(source + other * plane, width, x, y);
          largest = larger(largest, rival.largest);
          if (other < klass ? rival.value >= value : rival.value > value) inside = 0;
          const float half = (value - rival.value) * 0.5f;
          if (half < signed_distance) signed_distance = half;
        }
      }
      const float rounding = outline.rounding * (largest + magnitude(threshold));
      const float distance = magnitude(signed_distance);
      if (inside) set |= 1u << bit;
      const int banded = band >= 0.0f;
      if (banded && distance <= band) close++;
      if (rounding > 0.0f && (distance <= rounding || (banded && magnitude(distance - band) <= rounding))) unsure++;
    }
    bits[outline.word + word] = set;
  }
  if (unsure) atomicAdd(&mine->unsure, unsure);
  if (close) atomicAdd(&mine->close, close);
}
