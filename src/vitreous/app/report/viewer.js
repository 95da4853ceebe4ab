// March rays through a map held in a 3D texture and light the surface where it reaches the level. WebGL2, no library.
function startMapViewer(root, data) {
  const canvas = root.querySelector("canvas"), gl = canvas.getContext("webgl2", { alpha: true, antialias: false });
  if (!gl) { root.querySelector(".stage").style.display = "none"; root.querySelector("label").style.display = "none"; return; }
  const bytes = Uint8Array.from(atob(data.voxels), c => c.charCodeAt(0)), [nx, ny, nz] = data.shape;
  const colours = data.colour ? Uint8Array.from(atob(data.colour), c => c.charCodeAt(0)) : null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, data.vertex], [gl.FRAGMENT_SHADER, data.fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source); gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) { console.error(gl.getShaderInfoLog(shader)); return; }
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program);
  const texture = (unit, values) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, nx, ny, nz, 0, gl.RED, gl.UNSIGNED_BYTE, values);
    for (const [key, value] of [[gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_R, gl.CLAMP_TO_EDGE]])
      gl.texParameteri(gl.TEXTURE_3D, key, value);
  };
  texture(0, bytes);
  texture(1, colours || bytes);
  const at = name => gl.getUniformLocation(program, name);
  gl.uniform1i(at("map"), 0); gl.uniform1i(at("paint"), 1);
  gl.uniform3f(at("shape"), nx, ny, nz);
  const slider = root.querySelector("input[type=range]"), shown = root.querySelector("output");
  const painted = root.querySelector("input[type=checkbox]");
  let turn = [0.92, 0.26, -0.28, 0.08], zoom = 1.35, waiting = false, spin = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const times = (a, b) => [a[0]*b[0]-a[1]*b[1]-a[2]*b[2]-a[3]*b[3], a[0]*b[1]+a[1]*b[0]+a[2]*b[3]-a[3]*b[2],
    a[0]*b[2]-a[1]*b[3]+a[2]*b[0]+a[3]*b[1], a[0]*b[3]+a[1]*b[2]-a[2]*b[1]+a[3]*b[0]];
  const about = (x, y, angle) => { const s = Math.sin(angle / 2); return [Math.cos(angle / 2), x * s, y * s, 0]; };
  const matrix = q => { const n = Math.hypot(...q), [w, x, y, z] = q.map(v => v / n); return [
    1-2*(y*y+z*z), 2*(x*y+w*z), 2*(x*z-w*y), 2*(x*y-w*z), 1-2*(x*x+z*z), 2*(y*z+w*x), 2*(x*z+w*y), 2*(y*z-w*x), 1-2*(x*x+y*y)]; };
  const draw = () => {
    waiting = false;
    const scale = Math.min(devicePixelRatio || 1, 2), w = Math.round(canvas.clientWidth * scale), h = Math.round(canvas.clientHeight * scale);
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    gl.viewport(0, 0, w, h);
    gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniformMatrix3fv(at("turn"), false, matrix(turn));
    gl.uniform1f(at("level"), slider.value / 255);
    gl.uniform2f(at("window"), w / Math.min(w, h), h / Math.min(w, h));
    gl.uniform1f(at("zoom"), zoom);
    gl.uniform1f(at("painted"), painted && painted.checked ? 1 : 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    shown.textContent = (data.low + (data.high - data.low) * slider.value / 255).toPrecision(3);
    if (spin) { turn = times(about(0, 1, 0.006), turn); ask(); }
  };
  const ask = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  canvas.addEventListener("pointerdown", event => { spin = false; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    if (!event.buttons) return;
    const reach = Math.hypot(event.movementX, event.movementY);
    if (reach) turn = times(about(event.movementY / reach, event.movementX / reach, reach / canvas.clientHeight * 4), turn);
    ask();
  });
  canvas.addEventListener("wheel", event => { event.preventDefault(); zoom = Math.min(8, Math.max(0.5, zoom * Math.exp(-event.deltaY * 0.001))); ask(); }, { passive: false });
  canvas.addEventListener("dblclick", () => { turn = [0.92, 0.26, -0.28, 0.08]; zoom = 1.35; ask(); });
  slider.addEventListener("input", ask);
  if (painted) painted.addEventListener("change", ask);
  addEventListener("resize", ask);
  draw();
}
