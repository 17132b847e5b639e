// Times yagit's 3D gamma (Wendling) on two raw doses for benchmarks/gamma.py, and writes its map.
//
// yagit (https://github.com/DataMedSci/yagit, GPL-3.0) is a peer to measure against, no part of this project. Build and
// install it as its documentation says (CMake, Release; -DGAMMA_VERSION=SEQUENTIAL for one thread), then
//
//   g++ -std=c++17 -O3 -DNDEBUG -I YAGIT/include benchmarks/yagit_gamma.cpp YAGIT/lib/libyagit.a -o yagit_gamma
//
// (with -pthread where yagit was built with threads) and put yagit_gamma in PATH, or name it with --yagit.
//
//   yagit_gamma REFERENCE EVALUATION GAMMA  NZ NY NX  DZ DY DX  PERCENT MM local|global NORMALISATION_GY CUTOFF_GY
//               REACH_MM STEP_MM CALLS_S
//
// The files hold float32, (z, y, x), both doses on one grid. The search is called for CALLS_S seconds, three times at
// least. Printed: CPU seconds (all threads) and wall seconds of the least call, and the pass rate in percent.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <yagit/Gamma.hpp>

namespace {

std::vector<float> read_dose(const std::string& path, std::size_t n_voxels) {
    std::vector<float> dose_gy(n_voxels);
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(dose_gy.data()), static_cast<std::streamsize>(n_voxels * sizeof(float)));
    if (!file || file.peek() != std::ifstream::traits_type::eof()) {
        throw std::runtime_error(path + ": not a float32 dose of " + std::to_string(n_voxels) + " voxels");
    }
    return dose_gy;
}

void run(const std::vector<std::string>& words) {
    const auto count = [&](int i) { return static_cast<std::uint32_t>(std::stoul(words.at(i))); };
    const auto number = [&](int i) { return std::stof(words.at(i)); };
    const yagit::DataSize size{count(4), count(5), count(6)};
    const yagit::DataOffset offset{0, 0, 0};
    const yagit::DataSpacing spacing{number(7), number(8), number(9)};
    const std::size_t n_voxels = static_cast<std::size_t>(size.frames) * size.rows * size.columns;
    const yagit::ImageData reference(read_dose(words.at(1), n_voxels), size, offset, spacing);
    const yagit::ImageData evaluation(read_dose(words.at(2), n_voxels), size, offset, spacing);

    yagit::GammaParameters parameters{};
    parameters.ddThreshold = number(10);
    parameters.dtaThreshold = number(11);
    parameters.normalization =
        words.at(12) == "local" ? yagit::GammaNormalization::Local : yagit::GammaNormalization::Global;
    parameters.globalNormDose = number(13);
    parameters.doseCutoff = number(14);
    parameters.maxSearchDistance = number(15);
    parameters.stepSize = number(16);

    double cpu_s = std::numeric_limits<double>::infinity();
    double wall_s = cpu_s;
    yagit::GammaResult gamma;
    double spent_s = 0;
    for (int i = 0; i < 3 || spent_s < number(17); i++) {
        const auto start = std::chrono::steady_clock::now();
        const std::clock_t start_cpu = std::clock();
        gamma = yagit::gammaIndex3DWendling(reference, evaluation, parameters);
        const double call_s = static_cast<double>(std::clock() - start_cpu) / CLOCKS_PER_SEC;
        cpu_s = std::min(cpu_s, call_s);
        wall_s = std::min(wall_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        spent_s += call_s;
    }

    std::ofstream file(words.at(3), std::ios::binary);
    file.write(reinterpret_cast<const char*>(gamma.data()), static_cast<std::streamsize>(n_voxels * sizeof(float)));
    if (!file.flush()) {
        throw std::runtime_error(words.at(3) + ": the map could not be written");
    }
    std::cout.precision(9);
    std::cout << cpu_s << " " << wall_s << " " << 100 * gamma.passingRate() << "\n";
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 18) {
        std::cerr << "yagit_gamma: 17 arguments are needed, see the head of yagit_gamma.cpp\n";
        return 2;
    }
    try {
        run({argv, argv + argc});
    } catch (const std::exception& error) {
        std::cerr << "yagit_gamma: " << error.what() << "\n";
        return 1;
    }
    return 0;
}
