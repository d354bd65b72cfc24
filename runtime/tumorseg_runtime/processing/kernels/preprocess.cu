// Preprocessing in one kernel, in integers alone: bilinear resize by 8-bit weights (the rule of
// tumorseg_runtime/preprocess.py), a table of normalised values, NCHW. Taps and table are made on the host, so
// no rounding of a float happens here, and any C++ compiler gives the same bits. No header is needed.
//
// Host and kernel agree on these layouts by preprocess_cuda.py: IMAGE, TAP.

typedef unsigned char Byte;
typedef unsigned int Word;

struct Tap {  // one output column or row: two source samples, the second one's weight in 1/256
  int first, second, weight;
};

struct Image {
  unsigned long long pixels;  // device address of uint8 (H, W) or (H, W, 3)
  long long pitch;            // bytes from row to row
  int channels;               // 1 or 3
  int columns, rows;          // where the taps of its columns and rows begin
  int reserved;
};

static_assert(sizeof(Tap) == 12 && sizeof(Image) == 32, "the host packs these");

__device__ __forceinline__ Word blend(const Byte* upper, const Byte* lower, int left, int right, Tap x, Tap y) {
  const Word above = upper[left] * (256u - x.weight) + upper[right] * (Word)x.weight;
  const Word below = lower[left] * (256u - x.weight) + lower[right] * (Word)x.weight;
  return (above * (256u - y.weight) + below * (Word)y.weight + 32768u) >> 16;  // at most 255
}

// One thread makes one pixel in all planes; blockIdx.z is the image. Value holds the bits of a float or half, or a byte.
template <typename Value>
__device__ __forceinline__ void preprocess(const Image* images, const Tap* taps, const Value* table, Value* out,
                                           int planes, int height, int width) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  const int row = blockIdx.y * blockDim.y + threadIdx.y;
  if (column >= width || row >= height) return;
  const Image image = images[blockIdx.z];
  const Tap x = taps[image.columns + column];
  const Tap y = taps[image.rows + row];
  const Byte* pixels = (const Byte*)image.pixels;
  const Byte* upper = pixels + y.first * image.pitch;
  const Byte* lower = pixels + y.second * image.pitch;
  const int left = x.first * image.channels;
  const int right = x.second * image.channels;
  const unsigned long long plane = (unsigned long long)height * width;
  Value* target = out + blockIdx.z * planes * plane + (unsigned long long)row * width + column;
  Word value = blend(upper, lower, left, right, x, y);
  for (int k = 0; k < planes; k++) {  // gray is blended once and looked up once per plane
    if (k > 0 && image.channels > 1) value = blend(upper, lower, left + k, right + k, x, y);
    target[k * plane] = table[k * 256 + value];
  }
}

extern "C" __global__ void preprocess_float32(const Image* images, const Tap* taps, const Word* table, Word* out,
                                              int planes, int height, int width) {
  preprocess(images, taps, table, out, planes, height, width);
}

extern "C" __global__ void preprocess_float16(const Image* images, const Tap* taps, const unsigned short* table,
                                              unsigned short* out, int planes, int height, int width) {
  preprocess(images, taps, table, out, planes, height, width);
}

extern "C" __global__ void preprocess_uint8(const Image* images, const Tap* taps, const Byte* table, Byte* out,
                                            int planes, int height, int width) {
  preprocess(images, taps, table, out, planes, height, width);
}
