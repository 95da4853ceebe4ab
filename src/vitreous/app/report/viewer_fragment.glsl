#version 300 es
precision highp float;
precision highp sampler3D;
uniform sampler3D map, paint;
uniform vec3 shape;
uniform mat3 turn;
uniform vec2 window;
uniform float level, zoom, painted;
in vec2 at;
out vec4 colour;

const float REACH = 0.88;  // the cube's half diagonal: nothing lies farther out

float density(vec3 p) { return texture(map, p + 0.5).r; }

vec3 slope(vec3 p) {
  vec3 h = 1.2 / shape;
  return vec3(density(p + vec3(h.x, 0, 0)) - density(p - vec3(h.x, 0, 0)),
              density(p + vec3(0, h.y, 0)) - density(p - vec3(0, h.y, 0)),
              density(p + vec3(0, 0, h.z)) - density(p - vec3(0, 0, h.z)));
}

// blue (good) - green - yellow - red (bad)
vec3 scale(float t) {
  return clamp(vec3(1.6 * t - 0.15, 1.0 - abs(2.2 * t - 0.95), 1.15 - 2.1 * t), 0.0, 1.0) * 0.8 + 0.12;
}

void main() {
  vec2 place = at * window * REACH / zoom;
  mat3 back = transpose(turn);
  vec3 from = back * vec3(place, REACH), along = back * vec3(0, 0, -1);
  // Only the part of the ray within the cube.
  vec3 a = (-0.5 - from) / along, b = (0.5 - from) / along;
  vec3 near = min(a, b), far = max(a, b);
  float t = max(max(near.x, near.y), max(near.z, 0.0)), end = min(far.x, min(far.y, far.z));
  float step = 0.6 / max(shape.x, max(shape.y, shape.z));
  colour = vec4(0);
  for (int i = 0; i < 700 && t < end; i++, t += step) {
    vec3 p = from + along * t;
    if (density(p) < level) continue;
    float low = t - step, high = t;
    for (int j = 0; j < 5; j++) {
      float middle = 0.5 * (low + high);
      if (density(from + along * middle) < level) low = middle; else high = middle;
    }
    p = from + along * high;
    vec3 gradient = slope(p);
    vec3 normal = turn * (-gradient / max(length(gradient), 1e-6));
    if (normal.z < 0.0 && length(gradient) < 1e-5) normal = vec3(0, 0, 1);
    // How much density lies just outside: crevices are darker.
    float open = 0.0;
    vec3 outward = -gradient / max(length(gradient), 1e-6);
    for (int j = 1; j <= 4; j++) open += step * 3.0 * float(j) < 1.0 ? min(density(p + outward * step * 3.0 * float(j)) / level, 1.0) : 0.0;
    float shade = 1.0 - 0.13 * open;
    float light = 0.2 + 0.72 * max(dot(normal, normalize(vec3(-0.45, 0.55, 0.72))), 0.0)
                      + 0.25 * max(dot(normal, normalize(vec3(0.8, -0.2, 0.55))), 0.0);
    float gloss = 0.22 * pow(max(dot(normal, normalize(vec3(-0.25, 0.3, 0.92))), 0.0), 24.0);
    float fade = 1.0 - 0.4 * smoothstep(REACH - 0.5, REACH + 0.5, high);
    vec3 base = mix(vec3(0.5, 0.72, 0.79), scale(texture(paint, p + 0.5).r), painted);
    colour = vec4((base * light * shade + gloss) * fade, 1.0);
    return;
  }
}
