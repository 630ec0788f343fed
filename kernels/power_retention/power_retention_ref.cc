// Straight from the definition: plain loops in double, with libm.
#include <cmath>
#include <vector>

#include "kernels/power_retention/layout.h"
#include "kernels/power_retention/power_retention.h"

namespace statehouse::kernels {
namespace {

// One query head's view: element [t, head, i] of an array with `heads` heads.
const float* Row(const float* base, int64_t t, int heads, int head, int d) { return base + (t * heads + head) * d; }

double Dot(const float* a, const float* b, int d) {
  double sum = 0;
  for (int i = 0; i < d; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

void Normalise(const std::vector<double>& numerator, double denominator, int d, double* y) {
  for (int i = 0; i < d; ++i) y[i] = denominator > 0 ? numerator[i] / denominator : 0.0;
}

// All monomials of x in lexicographic order; `multiplicity` counts each as often as it occurs in (sum of x)^p.
void AppendMonomials(const float* x, int d, int degree, int first, double product, int run, double multiplicity,
                     bool with_multiplicity, std::vector<double>& out) {
  if (degree == 0) {
    out.push_back(with_multiplicity ? product * multiplicity : product);
    return;
  }
  for (int i = first; i < d; ++i) {
    const int new_run = i == first ? run + 1 : 1;
    AppendMonomials(x, d, degree - 1, i, product * x[i], new_run, multiplicity / new_run, with_multiplicity, out);
  }
}

double Factorial(int n) { return n <= 1 ? 1 : n * Factorial(n - 1); }

std::vector<double> ExpandQuery(const float* q, int d, int degree) {
  std::vector<double> out;
  AppendMonomials(q, d, degree, 0, 1, 0, 1, false, out);
  return out;
}

std::vector<double> ExpandKey(const float* k, int d, int degree) {
  std::vector<double> out;
  AppendMonomials(k, d, degree, 0, 1, 0, Factorial(degree), true, out);
  return out;
}

}  // namespace

void PowerRetentionQuadraticRef(const RetentionRefArgs& args) {
  const int d = args.head_dim;
  const int group = args.heads_q / args.heads_kv;
  std::vector<double> numerator(d);
  for (int head = 0; head < args.heads_q; ++head) {
    const int kv = head / group;
    for (int64_t t = 0; t < args.t; ++t) {
      std::fill(numerator.begin(), numerator.end(), 0.0);
      double denominator = 0;
      double log_decay = 0;  // G[t] - G[j], summed backwards from t
      for (int64_t j = t; j >= 0; --j) {
        const double score =
            args.scale * Dot(Row(args.Q, t, args.heads_q, head, d), Row(args.K, j, args.heads_kv, kv, d), d);
        const double weight = std::pow(score, args.degree) * std::exp(log_decay);
        const float* v = Row(args.V, j, args.heads_kv, kv, d);
        for (int i = 0; i < d; ++i) numerator[i] += weight * v[i];
        denominator += weight;
        if (args.log_G != nullptr) log_decay += args.log_G[j * args.heads_kv + kv];
      }
      Normalise(numerator, denominator, d, args.Y + (t * args.heads_q + head) * d);
    }
  }
}

void PowerRetentionRecurrentRef(const RetentionRefArgs& args) {
  const int d = args.head_dim;
  const int group = args.heads_q / args.heads_kv;
  const int64_t D = ExpandedSize(d, args.degree);
  std::vector<double> numerator(d);
  for (int kv = 0; kv < args.heads_kv; ++kv) {
    std::vector<double> S(D * d);
    std::vector<double> z(D);
    for (int64_t t = 0; t < args.t; ++t) {
      const double gate =
          args.log_G == nullptr ? 1.0 : std::exp(static_cast<double>(args.log_G[t * args.heads_kv + kv]));
      const std::vector<double> key = ExpandKey(Row(args.K, t, args.heads_kv, kv, d), d, args.degree);
      const float* v = Row(args.V, t, args.heads_kv, kv, d);
      for (int64_t m = 0; m < D; ++m) {
        for (int i = 0; i < d; ++i) S[m * d + i] = gate * S[m * d + i] + key[m] * v[i];
        z[m] = gate * z[m] + key[m];
      }
      for (int head = kv * group; head < (kv + 1) * group; ++head) {
        const std::vector<double> query = ExpandQuery(Row(args.Q, t, args.heads_q, head, d), d, args.degree);
        std::fill(numerator.begin(), numerator.end(), 0.0);
        double denominator = 0;
        for (int64_t m = 0; m < D; ++m) {
          for (int i = 0; i < d; ++i) numerator[i] += query[m] * S[m * d + i];
          denominator += query[m] * z[m];
        }
        Normalise(numerator, denominator, d, args.Y + (t * args.heads_q + head) * d);
      }
    }
  }
}

}  // namespace statehouse::kernels
